//! Users, and what they may do.

use std::path::PathBuf;

use reqwest::{RequestBuilder, StatusCode};

use crate::client_api::error_code;
use crate::harness::redis::Redis;
use crate::harness::{Setup, TestCluster, eventually};

const USERS: &str = "users:
  app: {password: s3cret, read: [app/, shared/], write: [app/]}
  default: {read: [public/]}
";

/// A ring whose nodes all follow one file.
async fn cluster(users: &str) -> (TestCluster, PathBuf, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.yaml");
    std::fs::write(&path, users).unwrap();
    let options = vec![
        "--users-file".to_owned(),
        path.display().to_string(),
        "--resp-read-modify-write".to_owned(),
        "best-effort".to_owned(),
    ];
    (TestCluster::start(Setup { options, ..Setup::default() }).await, path, folder)
}

async fn status(request: RequestBuilder) -> StatusCode {
    request.send().await.unwrap().status()
}

#[tokio::test(flavor = "multi_thread")]
async fn http_clients_do_what_their_user_may() {
    let (cluster, _, _folder) = cluster(USERS).await;
    let url = |key: &str| cluster.nodes[0].kv(key);
    let app = |request: RequestBuilder| request.basic_auth("app", Some("s3cret"));
    let http = &cluster.http;
    assert_eq!(status(app(http.put(url("app/k")).body("x"))).await, StatusCode::NO_CONTENT);
    assert_eq!(status(app(http.get(url("app/k")))).await, StatusCode::OK);
    assert_eq!(status(http.get(url("app/k")).bearer_auth("s3cret")).await, StatusCode::OK);
    assert_eq!(status(app(http.get(url("shared/k")))).await, StatusCode::NOT_FOUND);
    assert_eq!(status(http.get(url("public/k"))).await, StatusCode::NOT_FOUND, "who says no name is default");

    let refused = |request: RequestBuilder| async { error_code(request.send().await.unwrap()).await };
    let forbidden = (StatusCode::FORBIDDEN, "forbidden".to_owned());
    assert_eq!(refused(app(http.put(url("shared/k")).body("x"))).await, forbidden);
    assert_eq!(refused(app(http.delete(url("other")))).await, forbidden);
    assert_eq!(refused(http.get(url("app/k"))).await, forbidden);
    let conditional = app(http.put(url("shared/k")).header("if-none-match", "*").body("x"));
    assert_eq!(refused(conditional).await, forbidden);
    let pair = serde_json::json!({"key": "shared/k", "value": "x"});
    assert_eq!(refused(app(http.post(cluster.nodes[0].url("/key")).json(&pair))).await, forbidden);
    assert_eq!(refused(app(http.get(cluster.nodes[0].url("/key/other")))).await, forbidden);

    for wrong in [
        http.get(url("public/k")).basic_auth("app", Some("wrong")),
        http.get(url("public/k")).basic_auth("nobody", Some("s3cret")),
        http.get(url("public/k")).bearer_auth("wrong"),
        http.get(url("public/k")).header("authorization", "Digest abc"),
        http.post(cluster.nodes[0].url("/v1/batch")).bearer_auth("wrong"),
    ] {
        let answer = wrong.send().await.unwrap();
        assert!(answer.headers()["www-authenticate"].to_str().unwrap().starts_with("Basic "));
        assert_eq!(error_code(answer).await, (StatusCode::UNAUTHORIZED, "unauthorized".to_owned()));
    }
    let lines = "{\"op\":\"put\",\"key\":\"app/b\",\"text\":\"x\"}\n{\"op\":\"put\",\"key\":\"shared/b\",\"text\":\"x\"}\n";
    let batch = app(http.post(cluster.nodes[0].url("/v1/batch"))).body(lines).send().await.unwrap();
    let told = batch.text().await.unwrap();
    let told: Vec<&str> = told.lines().collect();
    assert!(told[0].contains("\"status\":204") && told[1].contains("\"status\":403"), "{told:?}");
    assert_eq!(status(http.get(cluster.nodes[0].url("/openapi.json"))).await, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_clients_do_what_their_user_may() {
    let (cluster, ..) =
        cluster("users: {app: {password: s3cret, read: [app/, shared/], write: [app/]}}").await;
    let mut redis = Redis::connect(&cluster.nodes[0]);
    for line in ["GET app/k", "SET app/k x", "PING", "CLIENT LIST", "MULTI"] {
        assert_eq!(redis.says(line), "NOAUTH Authentication required.", "{line}");
    }
    assert!(redis.says("HELLO 3").starts_with("NOAUTH HELLO must be called"));
    assert!(redis.says("HELLO 3 AUTH app wrong").starts_with("WRONGPASS "));
    assert!(redis.says("AUTH s3cret").starts_with("WRONGPASS "), "the user default has no password");
    assert_eq!(redis.says("AUTH app s3cret"), "OK");
    for (line, reply) in [
        ("SET app/k 1", "OK"),
        ("INCR app/k", "(2)"),
        ("GET app/k", "\"2\""),
        ("MGET app/k shared/k", "[\"2\" nil]"),
        ("SET shared/k x", "NOPERM No permissions to access a key"),
        ("MSET app/k x shared/k x", "NOPERM No permissions to access a key"),
        ("INCR shared/k", "NOPERM No permissions to access a key"),
        ("EXISTS other", "NOPERM No permissions to access a key"),
        ("GET app/k", "\"2\""),
    ] {
        assert_eq!(redis.says(line), reply, "{line}");
    }
    assert!(redis.says("CLIENT INFO").contains(" user=app "));
    assert_eq!(redis.says("RESET"), "RESET");
    assert_eq!(redis.says("GET app/k"), "NOAUTH Authentication required.");
    let mut other = Redis::connect(&cluster.nodes[1]);
    assert!(other.says("HELLO 2 AUTH app s3cret").contains("redis"));
    assert_eq!(other.says("GET app/k"), "\"2\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_counts_without_a_restart_and_a_wrong_one_changes_nothing() {
    let (cluster, path, _folder) = cluster(USERS).await;
    let mut redis = Redis::connect(&cluster.nodes[0]);
    assert_eq!(redis.says("AUTH app s3cret"), "OK");
    assert_eq!(redis.says("SET app/k x"), "OK");
    std::fs::write(&path, "users: {app: {pasword: x}}").unwrap();
    let reloads = |outcome: &'static str| {
        let labels = format!("outcome=\"{outcome}\"");
        let cluster = &cluster;
        async move { cluster.metric(0, "quorate_users_reloads_total", &labels).await }
    };
    eventually("the wrong file was seen", || async { reloads("error").await == 1.0 }).await;
    assert_eq!(redis.says("GET app/k"), "\"x\"");
    std::fs::write(&path, "users: {app: {password: other, read: ['']}}").unwrap();
    let get = |password: &'static str| {
        let request = cluster.http.get(cluster.nodes[0].kv("app/k")).basic_auth("app", Some(password));
        async move { request.send().await.unwrap().status() }
    };
    eventually("the new password counts", || async { get("other").await == StatusCode::OK }).await;
    assert_eq!(get("s3cret").await, StatusCode::UNAUTHORIZED);
    assert_eq!(redis.says("GET app/k"), "NOAUTH Authentication required.", "also for those who came before");
    assert_eq!(redis.says("AUTH app other"), "OK");
    assert_eq!(redis.says("SET app/k y"), "NOPERM No permissions to access a key");
}
