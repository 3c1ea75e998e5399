//! Conditional requests.

use reqwest::{Response, StatusCode};

use crate::client_api::error_code;
use crate::harness::{Setup, TestCluster};

fn context(answer: &Response) -> String {
    answer.headers()["quorate-context"].to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_happens_only_if_the_key_is_as_it_was() {
    let cluster = TestCluster::start(Setup::default()).await;
    let put = |through: usize, name: &'static str, tag: String, value: &'static str| {
        cluster.http.put(cluster.nodes[through].kv("k")).header(name, tag).body(value).send()
    };
    let refused = |answer: Response| async {
        assert_eq!(
            error_code(answer).await,
            (StatusCode::PRECONDITION_FAILED, "condition_failed".to_owned())
        );
    };
    refused(put(0, "if-match", "*".to_owned(), "x").await.unwrap()).await;
    let made = put(0, "if-none-match", "*".to_owned(), "one").await.unwrap();
    assert_eq!(made.status(), StatusCode::NO_CONTENT);
    assert_eq!(made.headers()["quorate-condition"], "read-then-write");
    refused(put(1, "if-none-match", "*".to_owned(), "x").await.unwrap()).await;

    let first = context(&made);
    let second = put(1, "if-match", format!("\"{first}\""), "two").await.unwrap();
    assert_eq!(second.status(), StatusCode::NO_CONTENT);
    refused(put(2, "if-match", format!("\"{first}\""), "x").await.unwrap()).await;
    refused(put(2, "if-none-match", context(&second), "x").await.unwrap()).await;
    let delete = cluster.http.delete(cluster.nodes[2].kv("k"));
    refused(delete.header("if-match", &first).send().await.unwrap()).await;
    let answer = cluster.get(0, "k").await;
    assert_eq!((answer.status(), answer.text().await.unwrap()), (StatusCode::OK, "two".to_owned()));
    let delete = cluster.http.delete(cluster.nodes[2].kv("k")).header("if-match", context(&second));
    assert_eq!(delete.send().await.unwrap().status(), StatusCode::NO_CONTENT);
    assert_eq!(cluster.get(0, "k").await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_is_told_that_nothing_has_changed() {
    let cluster = TestCluster::start(Setup::default()).await;
    let tag = context(&cluster.put(0, "k", "one").await);
    let get = |name: &'static str| {
        cluster.http.get(cluster.nodes[1].kv("k")).header(name, format!("\"{tag}\"")).send()
    };
    let same = get("if-none-match").await.unwrap();
    assert_eq!((same.status(), context(&same)), (StatusCode::NOT_MODIFIED, tag.clone()));
    assert_eq!(get("if-match").await.unwrap().text().await.unwrap(), "one");
    cluster
        .http
        .put(cluster.nodes[2].kv("k"))
        .header("quorate-context", &tag)
        .body("two")
        .send()
        .await
        .unwrap();
    assert_eq!(get("if-none-match").await.unwrap().text().await.unwrap(), "two");
    assert_eq!(get("if-match").await.unwrap().status(), StatusCode::PRECONDITION_FAILED);
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_that_say_nothing_are_refused() {
    let cluster = TestCluster::start(Setup::default()).await;
    let tag = context(&cluster.put(0, "k", "one").await);
    let other = context(&cluster.put(0, "other", "one").await);
    for (headers, code) in [
        (vec![("if-match", "*"), ("if-none-match", "*")], "bad_condition"),
        (vec![("if-match", "*"), ("if-match", "*")], "bad_condition"),
        (vec![("if-match", "\"a\", \"b\"")], "bad_condition"),
        (vec![("if-match", "*"), ("quorate-context", &tag)], "bad_condition"),
        (vec![("if-match", "\"abc\"")], "bad_context"),
        (vec![("if-match", &other)], "bad_context"),
    ] {
        let put = cluster.http.put(cluster.nodes[0].kv("k")).body("two");
        let put = headers.iter().fold(put, |put, (name, value)| put.header(*name, *value));
        let refused = error_code(put.send().await.unwrap()).await;
        assert_eq!(refused, (StatusCode::BAD_REQUEST, code.to_owned()), "{headers:?}");
    }
    assert_eq!(cluster.get(1, "k").await.text().await.unwrap(), "one");
}
