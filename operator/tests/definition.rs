//! The definition in `crds/` is the program's own output, and fits where it must.

use std::path::Path;

use kube::core::cel::Validator;
use quorate_operator::crd;

/// What `kubectl apply` puts into an annotation may not be longer.
const ANNOTATION_BYTES_MAX: usize = 262_144;

#[test]
fn the_committed_definition_is_the_generated_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/kvclusters.yaml");
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == crd::yaml(),
        "crds/kvclusters.yaml is not what the types say. Generate it again, and read the difference before committing:\n\
         \n    cargo run -p quorate-operator -- crd > crds/kvclusters.yaml\n"
    );
}

#[test]
fn the_definition_fits_into_the_annotation_of_kubectl_apply() {
    let json = serde_json::to_string(&crd::definition()).unwrap();
    assert!(json.len() < ANNOTATION_BYTES_MAX, "{} bytes", json.len());
}

#[test]
fn every_rule_has_a_sentence() {
    fn walk(value: &serde_json::Value, rules: &mut Vec<serde_json::Value>) {
        if let Some(found) = value.get("x-kubernetes-validations").and_then(|rules| rules.as_array()) {
            rules.extend(found.iter().cloned());
        }
        match value {
            serde_json::Value::Object(fields) => fields.values().for_each(|field| walk(field, rules)),
            serde_json::Value::Array(items) => items.iter().for_each(|item| walk(item, rules)),
            _ => {}
        }
    }
    let mut rules = Vec::new();
    walk(&serde_json::to_value(crd::definition()).unwrap(), &mut rules);
    assert!(rules.len() >= 30, "{}", rules.len());
    for rule in rules {
        let sentence = rule["message"].as_str().unwrap_or_default();
        assert!(sentence.split(' ').count() >= 6, "{rule}");
    }
}

/// The sentences of the rules, without an API server: what the fast tests can see of `bad-objects/`. (Types and enums
/// are the API server's own; the tests against a real one see them all.)
#[test]
fn bad_objects_break_the_rules_whose_sentences_they_expect() {
    let definition = serde_json::to_value(crd::definition()).unwrap();
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let sentences = definition.to_string();
    let mut seen = 0;
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad-objects")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let sentence = text.lines().next().unwrap().strip_prefix("# expect: ").unwrap();
        if !sentences.contains(sentence) {
            continue;
        }
        let object: serde_json::Value = serde_yaml::from_str(&text).unwrap();
        let result = Validator::new().validate_with_defaults(schema, &object, None);
        let errors = result.map_or_else(|errors| errors.to_string(), |()| "accepted".to_owned());
        assert!(errors.contains(sentence), "{text}: {errors}");
        seen += 1;
    }
    assert!(seen >= 30, "{seen}");
}
