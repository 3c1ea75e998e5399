//! What the API server refuses, as data: `bad-objects/` and `bad-updates/`, each with the sentence it must say.

use std::path::{Path, PathBuf};

use kube::api::PostParams;
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, ResourceExt};
use quorate_operator::crd::KVCluster;
use serde_json::Value;

use crate::world::World;

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The object and, for a bad one, the sentence.
fn read(path: &Path) -> (DynamicObject, Option<String>) {
    let text = std::fs::read_to_string(path).unwrap();
    let sentence = text.lines().next().and_then(|line| line.strip_prefix("# expect: ")).map(str::to_owned);
    let object: Value = serde_yaml::from_str(&text).unwrap();
    (serde_json::from_value(object).unwrap(), sentence)
}

fn untyped(world: &World) -> Api<DynamicObject> {
    Api::namespaced_with(world.client.clone(), &world.namespace, &ApiResource::erase::<KVCluster>(&()))
}

/// None when it was refused with the sentence; what happened instead otherwise.
fn miss(path: &Path, sentence: &str, result: kube::Result<DynamicObject>) -> Option<String> {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    match result {
        Err(kube::Error::Api(status)) if status.message.contains(sentence) => None,
        Err(error) => Some(format!("{name}: wanted {sentence:?}, got {error}")),
        Ok(_) => Some(format!("{name}: accepted")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_objects_are_refused_with_a_sentence_that_helps() {
    let world = World::new().await;
    let api = untyped(&world);
    let files = files("bad-objects");
    assert!(files.len() >= 30, "{}", files.len());
    let mut misses = Vec::new();
    for path in files {
        let (object, sentence) = read(&path);
        let result = api.create(&PostParams::default(), &object).await;
        misses.extend(miss(&path, &sentence.expect("the first line says what to expect"), result));
    }
    assert!(misses.is_empty(), "{misses:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_must_not_change_do_not() {
    let world = World::new().await;
    let api = untyped(&world);
    let (base, updates): (Vec<_>, Vec<_>) =
        files("bad-updates").into_iter().partition(|path| path.ends_with("base.yaml"));
    let created = api.create(&PostParams::default(), &read(&base[0]).0).await.unwrap();
    assert!(updates.len() >= 5, "{}", updates.len());
    let mut misses = Vec::new();
    for path in updates {
        let (mut object, sentence) = read(&path);
        object.metadata.resource_version = created.resource_version();
        let result = api.replace(&created.name_any(), &PostParams::default(), &object).await;
        misses.extend(miss(&path, &sentence.expect("the first line says what to expect"), result));
    }
    assert!(misses.is_empty(), "{misses:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_wish_gets_every_default() {
    let world = World::new().await;
    let empty: DynamicObject = serde_yaml::from_str(
        "{apiVersion: quorate.dev/v1alpha1, kind: KVCluster, metadata: {name: demo}, spec: {}}",
    )
    .unwrap();
    let stored = untyped(&world).create(&PostParams::default(), &empty).await.unwrap();
    let spec: quorate_operator::crd::KVClusterSpec =
        serde_json::from_value(stored.data["spec"].clone()).unwrap();
    assert_eq!(spec, Default::default());
    assert_eq!(stored.data["spec"]["replication"]["factor"], 3, "the stored object says what holds");
}
