//! JSON: documents that are patched, and the simple form.

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::client_api::error_code;
use crate::harness::{Setup, TestCluster};

const MERGE_PATCH: &str = "application/merge-patch+json";

async fn patch(cluster: &TestCluster, through: usize, key: &str, body: impl ToString) -> Response {
    let request = cluster.http.patch(cluster.nodes[through].kv(key)).header("content-type", MERGE_PATCH);
    request.body(body.to_string()).send().await.unwrap()
}

async fn document(cluster: &TestCluster, through: usize, key: &str) -> Value {
    cluster.get(through, key).await.json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_changes_what_it_names_and_nothing_else() {
    let cluster = TestCluster::start(Setup::default()).await;
    let made = patch(&cluster, 0, "cart", json!({"items": {"tea": 1, "milk": null}})).await;
    assert_eq!(made.status(), StatusCode::NO_CONTENT);
    assert_eq!(made.headers()["quorate-siblings"], "1");
    assert!(
        patch(&cluster, 1, "cart", json!({"items": {"milk": 2}, "note": "soon"})).await.status().is_success()
    );
    assert!(patch(&cluster, 2, "cart", json!({"note": null})).await.status().is_success());
    assert_eq!(document(&cluster, 0, "cart").await, json!({"items": {"tea": 1, "milk": 2}}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_keeps_the_end_of_a_value_unless_it_says_another() {
    let cluster = TestCluster::start(Setup::default()).await;
    cluster.http.put(format!("{}?ttl=1h", cluster.nodes[0].kv("k"))).body("{}").send().await.unwrap();
    let ends = || async {
        let json = cluster.http.get(cluster.nodes[1].kv("k")).header("accept", "application/json");
        let json: Value = json.send().await.unwrap().json().await.unwrap();
        json["values"][0]["expiresAtUnixMs"].as_u64().unwrap()
    };
    let before = ends().await;
    assert!(patch(&cluster, 2, "k", json!({"a": 1})).await.status().is_success());
    assert_eq!(ends().await, before);
    let longer = cluster.http.patch(format!("{}?ttl=2h", cluster.nodes[0].kv("k")));
    let longer = longer.header("content-type", MERGE_PATCH).body("{}").send().await.unwrap();
    assert!(longer.status().is_success() && ends().await > before);
}

/// Two that patch at the same time both find their change in the end, whatever node they asked.
#[tokio::test(flavor = "multi_thread")]
async fn patches_at_the_same_time_are_all_there() {
    let cluster = TestCluster::start(Setup::default()).await;
    for round in 0..20 {
        let key = format!("cart-{round}");
        let (one, other) = tokio::join!(
            patch(&cluster, 0, &key, json!({"a": round})),
            patch(&cluster, 1, &key, json!({"b": round}))
        );
        assert!(one.status().is_success() && other.status().is_success());
        assert_eq!(document(&cluster, 2, &key).await, json!({"a": round, "b": round}), "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_patched_says_why() {
    let cluster = TestCluster::start(Setup::default()).await;
    let refused = |answer: Response, status: StatusCode, code: &'static str| async move {
        assert_eq!(error_code(answer).await, (status, code.to_owned()));
    };
    cluster.put(0, "text", "not json").await;
    refused(patch(&cluster, 0, "text", "{}").await, StatusCode::CONFLICT, "not_json").await;
    refused(patch(&cluster, 0, "k", "{").await, StatusCode::BAD_REQUEST, "bad_request").await;
    let deep = "{\"a\":".repeat(100_000) + "1" + &"}".repeat(100_000);
    refused(patch(&cluster, 0, "k", deep).await, StatusCode::BAD_REQUEST, "bad_request").await;
    let untyped = cluster.http.patch(cluster.nodes[0].kv("k")).body("{}").send().await.unwrap();
    assert_eq!(untyped.headers()["accept-patch"], MERGE_PATCH);
    refused(untyped, StatusCode::UNSUPPORTED_MEDIA_TYPE, "bad_media_type").await;
    cluster.put(0, "two", "{\"a\":1}").await;
    let context = cluster.put(0, "two", "{\"a\":2}").await.headers()["quorate-context"].clone();
    refused(patch(&cluster, 1, "two", "{}").await, StatusCode::CONFLICT, "siblings").await;
    let with_context = cluster.http.patch(cluster.nodes[0].kv("two")).header("content-type", MERGE_PATCH);
    let with_context = with_context.header("quorate-context", context).body("{}").send().await.unwrap();
    refused(with_context, StatusCode::BAD_REQUEST, "bad_condition").await;
    assert_eq!(cluster.get(0, "k").await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_simple_form() {
    let cluster = TestCluster::start(Setup::default()).await;
    let post = |body: Value| cluster.http.post(cluster.nodes[0].url("/key")).json(&body).send();
    let get = |key: &str| cluster.http.get(cluster.nodes[1].url(&format!("/key/{key}"))).send();
    for value in ["one", "two \"quoted\"\u{2603}"] {
        let pair = json!({"key": "a/b", "value": value});
        let answer = post(pair.clone()).await.unwrap();
        assert_eq!((answer.status(), answer.json::<Value>().await.unwrap()), (StatusCode::OK, pair.clone()));
        assert_eq!(get("a%2Fb").await.unwrap().json::<Value>().await.unwrap(), pair, "the last write wins");
    }
    assert_eq!(cluster.get(2, "a%2Fb").await.text().await.unwrap(), "two \"quoted\"\u{2603}");
    for wrong in
        [json!({"key": "a"}), json!({"key": "a", "value": 1}), json!({"key": "", "value": "x"}), json!([])]
    {
        let refused = error_code(post(wrong.clone()).await.unwrap()).await;
        assert_eq!(refused, (StatusCode::BAD_REQUEST, "bad_request".to_owned()), "{wrong}");
    }
    let gone = cluster.http.delete(cluster.nodes[2].url("/key/a/b")).send().await.unwrap();
    assert_eq!(gone.status(), StatusCode::NO_CONTENT);
    assert_eq!(error_code(get("a/b").await.unwrap()).await.0, StatusCode::NOT_FOUND);
    cluster.put(0, "bytes", vec![0xff]).await;
    assert_eq!(error_code(get("bytes").await.unwrap()).await, (StatusCode::CONFLICT, "not_text".to_owned()));
    let other = cluster.http.put(cluster.nodes[0].url("/key")).send().await.unwrap();
    assert_eq!(other.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(other.headers()["allow"], "POST");
}
