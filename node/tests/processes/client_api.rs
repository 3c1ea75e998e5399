//! What an HTTP client meets.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::harness::{DEADLINE, Setup, TestCluster, TestNode, eventually};

/// A client that says it will send ten bytes, and sends three.
fn half_a_put(node: &TestNode) -> TcpStream {
    let mut stream = TcpStream::connect((node.host.as_str(), 7001)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(b"PUT /v1/kv/half HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc").unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_in_the_middle_leaves_nothing_behind() {
    let cluster = TestCluster::start(Setup::default()).await;
    let in_progress = || cluster.metric(0, "quorate_requests_in_progress", "");
    let half = half_a_put(&cluster.nodes[0]);
    eventually("the request is in progress", || async { in_progress().await == 1.0 }).await;
    drop(half);
    eventually("the request is over", || async { in_progress().await == 0.0 }).await;
    let counted = cluster.metric(0, "quorate_requests_total", "operation=\"put\"").await;
    assert_eq!(counted, 1.0, "and it was counted");
    assert_eq!(cluster.get(0, "half").await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let options = ["--request-timeout", "500ms"].map(str::to_owned).to_vec();
    let cluster = TestCluster::start(Setup { options, ..Setup::default() }).await;
    let mut answer = String::new();
    half_a_put(&cluster.nodes[0]).read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("slow_request"), "{answer}");
    assert_eq!(cluster.get(0, "half").await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_is_the_same_api() {
    use hyper_util::rt::{TokioExecutor, TokioIo};

    let cluster = TestCluster::start(Setup::default()).await;
    let stream = tokio::net::TcpStream::connect((cluster.nodes[0].host.as_str(), 7001)).await.unwrap();
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut client, connection) = handshake.await.unwrap();
    let connection = tokio::spawn(connection);
    for (method, expected) in [("PUT", 204), ("GET", 200), ("HEAD", 200), ("DELETE", 204), ("GET", 404)] {
        let request = http::Request::builder().method(method).uri(cluster.nodes[0].kv("a%2Fb"));
        let answer = client.send_request(request.body("two".to_owned()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), expected, "{method}");
        assert!(answer.headers().contains_key("quorate-context"), "{method}");
    }
    drop(client);
    connection.await.unwrap().unwrap();
}

pub(crate) async fn error_code(answer: reqwest::Response) -> (StatusCode, String) {
    let status = answer.status();
    let body: Value = answer.json().await.unwrap();
    (status, body["error"]["code"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn any_node_answers_for_any_key() {
    let cluster = TestCluster::start(Setup::default()).await;
    for number in 0..30 {
        let key = format!("dir/{number}%20%2F%FF");
        assert_eq!(cluster.put(number % 3, &key, number.to_string()).await.status(), StatusCode::NO_CONTENT);
        for through in 0..3 {
            let answer = cluster.get(through, &key).await;
            assert_eq!(answer.status(), StatusCode::OK);
            assert_eq!(answer.headers()["content-type"], "application/octet-stream");
            assert_eq!(answer.text().await.unwrap(), number.to_string());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn siblings_stay_until_a_write_that_saw_them() {
    let cluster = TestCluster::start(Setup::default()).await;
    cluster.put(0, "k", "one").await;
    cluster.put(1, "k", "two").await;
    let answer = cluster.get(2, "k").await;
    assert_eq!(answer.status(), StatusCode::MULTIPLE_CHOICES);
    assert_eq!(answer.headers()["quorate-siblings"], "2");
    let context = answer.headers()["quorate-context"].clone();
    let content_type = answer.headers()["content-type"].to_str().unwrap().to_owned();
    let boundary = content_type.strip_prefix("multipart/mixed; boundary=").unwrap().to_owned();
    let body = answer.text().await.unwrap();
    assert_eq!(body.matches(&format!("--{boundary}\r\n")).count(), 2);
    assert!(body.contains("\r\n\r\none\r\n") && body.contains("\r\n\r\ntwo\r\n"), "{body}");

    let json =
        cluster.http.get(cluster.nodes[2].kv("k")).header("accept", "application/json").send().await.unwrap();
    assert_eq!(json.status(), StatusCode::MULTIPLE_CHOICES);
    let json: Value = json.json().await.unwrap();
    assert_eq!(json["values"].as_array().unwrap().len(), 2);
    assert_eq!(json["context"].as_str().unwrap(), context.to_str().unwrap());

    let merged = cluster.http.put(cluster.nodes[0].kv("k")).header("quorate-context", context).body("both");
    assert_eq!(merged.send().await.unwrap().status(), StatusCode::NO_CONTENT);
    let answer = cluster.get(1, "k").await;
    assert_eq!((answer.status(), answer.text().await.unwrap()), (StatusCode::OK, "both".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn last_write_wins_where_the_cluster_says_so() {
    let options = ["--conflicts", "last-write-wins"].map(str::to_owned).to_vec();
    let cluster = TestCluster::start(Setup { options, ..Setup::default() }).await;
    for (through, value) in ["one", "two", "three"].into_iter().enumerate() {
        cluster.put(through, "k", value).await;
    }
    let answer = cluster.get(0, "k").await;
    assert_eq!((answer.status(), answer.text().await.unwrap()), (StatusCode::OK, "three".to_owned()));
    cluster.http.delete(cluster.nodes[1].kv("k")).send().await.unwrap();
    assert_eq!(cluster.get(2, "k").await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_and_head() {
    let cluster = TestCluster::start(Setup::default()).await;
    assert_eq!(cluster.get(0, "k").await.status(), StatusCode::NOT_FOUND);
    cluster.put(0, "k", "value").await;
    let head = cluster.http.head(cluster.nodes[1].kv("k")).send().await.unwrap();
    assert_eq!((head.status(), head.headers()["content-length"].to_str().unwrap()), (StatusCode::OK, "5"));
    let delete = || cluster.http.delete(cluster.nodes[2].kv("k")).send();
    assert_eq!(delete().await.unwrap().status(), StatusCode::NO_CONTENT);
    let gone = cluster.get(0, "k").await;
    assert!(
        gone.headers().contains_key("quorate-context"),
        "a write after the delete can say that it saw it"
    );
    assert_eq!(error_code(gone).await, (StatusCode::NOT_FOUND, "not_found".to_owned()));
    assert_eq!(delete().await.unwrap().status(), StatusCode::NO_CONTENT, "deleting again is no error");
    cluster.put(0, "empty", "").await;
    let answer = cluster.get(1, "empty").await;
    assert_eq!((answer.status(), answer.text().await.unwrap()), (StatusCode::OK, String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_that_has_not_seen_a_value_does_not_delete_it() {
    let cluster = TestCluster::start(Setup::default()).await;
    let first = cluster.put(0, "k", "one").await.headers()["quorate-context"].clone();
    cluster.put(1, "k", "two").await;
    let delete = cluster.http.delete(cluster.nodes[0].kv("k")).header("quorate-context", first);
    assert_eq!(delete.send().await.unwrap().status(), StatusCode::NO_CONTENT);
    let answer = cluster.get(2, "k").await;
    assert_eq!((answer.status(), answer.text().await.unwrap()), (StatusCode::OK, "two".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_are_told_what_is_wrong() {
    let cluster = TestCluster::start(Setup::default()).await;
    let url = cluster.nodes[0].kv("k");
    let http = &cluster.http;
    let send = |request: reqwest::RequestBuilder| async { error_code(request.send().await.unwrap()).await };
    let context = cluster.put(0, "other", "x").await.headers()["quorate-context"].clone();
    let expect = |status, code: &str| (status, code.to_owned());
    assert_eq!(
        send(http.put(&url).header("quorate-context", "!")).await,
        expect(StatusCode::BAD_REQUEST, "bad_context")
    );
    assert_eq!(
        send(http.put(&url).header("quorate-context", context).body("x")).await,
        expect(StatusCode::BAD_REQUEST, "bad_context"),
    );
    assert_eq!(
        send(http.get(cluster.nodes[0].kv(&"k".repeat(5000)))).await,
        expect(StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
    );
    assert_eq!(
        send(http.put(&url).body(vec![0; 4 * 1024 * 1024 + 1])).await,
        expect(StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
    );
    for query in ["tll=5", "w=4", "w=0", "w=some", "ttl=0", "ttl=soon", "r=1", "w=1&w=1"] {
        let refused = send(http.put(format!("{url}?{query}")).body("x")).await;
        assert_eq!(refused, expect(StatusCode::BAD_REQUEST, "bad_parameter"), "{query}");
    }
    assert_eq!(
        send(http.request(Method::POST, &url)).await,
        expect(StatusCode::METHOD_NOT_ALLOWED, "bad_method")
    );
    assert_eq!(
        send(http.request(Method::POST, cluster.nodes[0].url("/openapi.json"))).await,
        expect(StatusCode::METHOD_NOT_ALLOWED, "bad_method")
    );
    assert_eq!(
        send(http.get(cluster.nodes[0].url("/nothing"))).await,
        expect(StatusCode::NOT_FOUND, "not_found")
    );
    assert_eq!(cluster.get(0, "k").await.status(), StatusCode::NOT_FOUND, "none of them wrote");
    let largest = vec![7; 4 * 1024 * 1024];
    assert_eq!(cluster.put(0, "large", largest.clone()).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(cluster.get(2, "large").await.bytes().await.unwrap(), largest);
}

#[tokio::test(flavor = "multi_thread")]
async fn siblings_are_bounded() {
    let cluster = TestCluster::start(Setup::default()).await;
    for _ in 0..100 {
        assert_eq!(cluster.put(0, "k", "x").await.status(), StatusCode::NO_CONTENT);
    }
    let refused = error_code(cluster.put(0, "k", "x").await).await;
    assert_eq!(refused, (StatusCode::CONFLICT, "too_many_siblings".to_owned()));
}

fn header<'a>(answer: &'a reqwest::Response, name: &str) -> &'a str {
    answer.headers().get(name).unwrap_or_else(|| panic!("no {name}")).to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_says_how_many_owners_and_is_told_how_many_there_were() {
    let mut cluster = TestCluster::start(Setup::default()).await;
    let url = |index: usize, query: &str| format!("{}?{query}", cluster.nodes[index].kv("k"));
    let put = |url: String| cluster.http.put(url).body("x").send();
    let all = put(url(0, "w=all")).await.unwrap();
    assert_eq!(all.status(), StatusCode::NO_CONTENT);
    for (name, value) in [
        ("quorate-replicas", "3"),
        ("quorate-epoch", "1"),
        ("quorate-durability", "sync"),
        ("quorate-quorum", "strict"),
    ] {
        assert_eq!(header(&all, name), value, "{name}");
    }
    for (query, replicas) in [("r=one", 1), ("r=quorum", 2), ("consistency=all", 3), ("r=3", 3)] {
        let answer = cluster.http.get(url(1, query)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{query}");
        assert!(header(&answer, "quorate-replicas").parse::<u8>().unwrap() >= replicas, "{query}");
    }
    let (one, read_all) = (url(0, "w=one"), url(0, "r=all"));
    // A key of its own: what is written blindly until the node is known to be down are siblings of each other.
    let all = format!("{}?w=all", cluster.nodes[0].kv("written-to-all"));
    cluster.nodes[2].kill();
    eventually("a write to all is refused before anything is written", || async {
        let answer = cluster.http.put(&all).body("y").send().await.unwrap();
        error_code(answer).await == (StatusCode::SERVICE_UNAVAILABLE, "unavailable".to_owned())
    })
    .await;
    assert_eq!(cluster.http.put(one).body("z").send().await.unwrap().status(), StatusCode::NO_CONTENT);
    let refused = error_code(cluster.http.get(read_all).send().await.unwrap()).await;
    assert_eq!(refused, (StatusCode::SERVICE_UNAVAILABLE, "unavailable".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_with_a_time_to_live_goes_by_itself_on_every_node() {
    let cluster = TestCluster::start(Setup::default()).await;
    let url = |index: usize, query: &str| format!("{}{query}", cluster.nodes[index].kv("k"));
    let lasting = cluster.http.put(url(0, "?ttl=1h")).body("x").send().await.unwrap();
    assert_eq!(lasting.status(), StatusCode::NO_CONTENT);
    let context = header(&lasting, "quorate-context").to_owned();
    let json = cluster.http.get(url(1, "")).header("accept", "application/json").send().await.unwrap();
    let json: Value = json.json().await.unwrap();
    let (written, expires) =
        (json["values"][0]["writtenAtUnixMs"].as_u64(), json["values"][0]["expiresAtUnixMs"].as_u64());
    assert!(expires.unwrap() - written.unwrap() > 3_500_000, "{json}");
    let short = cluster.http.put(url(2, "?ttl=1")).header("quorate-context", context).body("y");
    assert_eq!(short.send().await.unwrap().status(), StatusCode::NO_CONTENT);
    for through in 0..3 {
        eventually("it has expired", || async {
            cluster.get(through, "k").await.status() == StatusCode::NOT_FOUND
        })
        .await;
        let gone = cluster.get(through, "k").await;
        assert_eq!(header(&gone, "quorate-siblings"), "0");
    }
}
