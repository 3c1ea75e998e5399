//! Many operations in one request.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::client_api::error_code;
use crate::harness::{DEADLINE, Setup, TestCluster};

/// What each line of an answer says.
fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn batch(cluster: &TestCluster, through: usize, body: impl Into<reqwest::Body>) -> Vec<Value> {
    let answer = cluster.http.post(cluster.nodes[through].url("/v1/batch")).body(body).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
    lines(&answer.text().await.unwrap())
}

fn body(lines: &[Value]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_answered_in_their_order() {
    let cluster = TestCluster::start(Setup::default()).await;
    let puts: Vec<Value> =
        (0..500).map(|n| json!({"op": "put", "key": format!("k{n}"), "text": n.to_string()})).collect();
    let written = batch(&cluster, 0, body(&puts)).await;
    assert_eq!(written.len(), 500);
    for (n, told) in written.iter().enumerate() {
        assert_eq!(
            (told["line"].as_u64(), told["status"].as_u64()),
            (Some(n as u64 + 1), Some(204)),
            "{told}"
        );
    }
    let gets: Vec<Value> = (0..501).map(|n| json!({"op": "get", "key": format!("k{n}")})).collect();
    let read = batch(&cluster, 1, body(&gets)).await;
    for (n, told) in read[..500].iter().enumerate() {
        let value = base64_of(&n.to_string());
        assert_eq!(
            (told["key"].as_str(), &told["values"][0]["value"]),
            (Some(&*format!("k{n}")), &json!(value))
        );
    }
    assert_eq!((&read[500]["status"], &read[500]["error"]["code"]), (&json!(404), &json!("not_found")));

    let context = read[0]["context"].clone();
    let ends = batch(
        &cluster,
        2,
        body(&[
            json!({"op": "put", "key": "k0", "value": base64_of("again"), "context": context, "ttl": "1h"}),
            json!({"op": "delete", "key": "k1"}),
            json!({"op": "put", "keyBase64": "/w==", "text": "bytes", "ttl": 60}),
        ]),
    )
    .await;
    assert!(
        ends.iter().all(|told| told["status"] == 204 && told["replicas"].as_u64() >= Some(2)),
        "{ends:?}"
    );
    assert_eq!(cluster.get(0, "k0").await.text().await.unwrap(), "again");
    assert_eq!(cluster.get(0, "k1").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(cluster.get(0, "%FF").await.text().await.unwrap(), "bytes");
}

fn base64_of(text: &str) -> String {
    use base64::Engine as _;
    base64::prelude::BASE64_STANDARD.encode(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_wrong_does_not_touch_the_others() {
    let cluster = TestCluster::start(Setup::default()).await;
    let wrong = [
        "nonsense",
        "{}",
        r#"{"op":"put","key":"a"}"#,
        r#"{"op":"put","key":"a","text":"x","value":"eA=="}"#,
        r#"{"op":"put","key":"a","value":"!"}"#,
        r#"{"op":"put","text":"x"}"#,
        r#"{"op":"put","key":"a","keyBase64":"YQ==","text":"x"}"#,
        r#"{"op":"put","key":"a","text":"x","ttl":0}"#,
        r#"{"op":"put","key":"","text":"x"}"#,
        r#"{"op":"put","key":"a","text":"x","tll":1}"#,
        r#"{"op":"get","key":"a","text":"x"}"#,
        r#"{"op":"get","key":"a","ttl":1}"#,
        r#"{"op":"get","key":"a","context":"abc"}"#,
        r#"{"op":"rename","key":"a"}"#,
    ];
    let all = format!("{}\n\n{}", wrong.join("\n"), r#"{"op":"put","key":"good","text":"x"}"#);
    let told = batch(&cluster, 0, all).await;
    assert_eq!(told.len(), wrong.len() + 1);
    for (line, told) in wrong.iter().zip(&told) {
        assert_eq!(told["status"], 400, "{line}: {told}");
        assert!(told["error"]["message"].as_str().unwrap().len() > 20, "{told}");
    }
    assert_eq!((&told[wrong.len()]["status"], &told[wrong.len()]["line"]), (&json!(204), &json!(16)));
    assert_eq!(cluster.get(1, "a").await.status(), StatusCode::NOT_FOUND);
    let query = cluster.http.post(cluster.nodes[0].url("/v1/batch?w=many")).body("").send().await.unwrap();
    assert_eq!(error_code(query).await, (StatusCode::BAD_REQUEST, "bad_parameter".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_may_be_as_long_as_a_value_and_no_longer() {
    let cluster = TestCluster::start(Setup::default()).await;
    let largest = base64_of(&"x".repeat(4 * 1024 * 1024));
    let put = |key: &str, value: &str| format!("{}\n", json!({"op": "put", "key": key, "value": value}));
    let told = batch(&cluster, 0, put("a", &largest) + &put("b", "eA==")).await;
    assert_eq!((&told[0]["status"], &told[1]["status"]), (&json!(204), &json!(204)));
    let longer = put("c", &base64_of(&"x".repeat(4 * 1024 * 1024 + 1)));
    let endless = format!("{{\"op\":\"put\",\"key\":\"d\",\"text\":\"{}", "x".repeat(8 << 20));
    let told = batch(&cluster, 0, longer + &endless).await;
    assert_eq!(told.iter().map(|told| told["status"].as_u64().unwrap()).collect::<Vec<_>>(), [413, 413]);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_come_while_lines_are_still_sent_and_one_that_does_not_come_is_not_waited_for() {
    let options = ["--request-timeout", "1s"].map(str::to_owned).to_vec();
    let cluster = TestCluster::start(Setup { options, ..Setup::default() }).await;
    let mut stream = TcpStream::connect((cluster.nodes[0].host.as_str(), 7001)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
        .write_all(
            b"POST /v1/batch HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1000\r\n\r\n\
              {\"op\":\"put\",\"key\":\"a\",\"text\":\"x\"}\n{\"op\":",
        )
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let told: Vec<Value> = answer
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!((&told[0]["line"], &told[0]["status"]), (&json!(1), &json!(204)), "{answer}");
    assert_eq!(
        (&told[1]["line"], &told[1]["error"]["code"]),
        (&json!(2), &json!("slow_request")),
        "{answer}"
    );
}
