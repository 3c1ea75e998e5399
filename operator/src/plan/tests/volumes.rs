//! Volumes that grow: every step follows from what is observed.

use super::{actions, reasons};
use crate::build::names;
use crate::crd::KVClusterSpec;
use crate::fixtures::{absorb, at_rest, says, validated};
use crate::observe::{Existing, Growth, Observed, RingState};
use crate::plan::{Reason, decide};
use crate::validate::ValidatedCluster;

fn larger(change: fn(&mut KVClusterSpec)) -> ValidatedCluster {
    validated("demo", |spec| {
        spec.storage.size = "20Gi".to_owned();
        change(spec);
    })
}

/// A ring with volumes of 10Gi, whose StorageClass was asked.
fn small(growth: Growth) -> Observed {
    let mut observed = at_rest(&validated("demo", |_| {}));
    let set = observed.existing.stateful_set.as_mut().unwrap();
    set.metadata.uid = Some("set-1".to_owned());
    observed.claims.iter_mut().for_each(|claim| claim.growth = growth);
    observed
}

fn grown(observed: &mut Observed) {
    for claim in &mut observed.claims {
        claim.requested = "20Gi".to_owned();
        claim.capacity = Some("20Gi".to_owned());
    }
}

#[test]
fn claims_grow_first_and_the_stateful_set_is_made_again_when_all_have() {
    let cluster = larger(|_| {});
    let mut observed = small(Growth::Allowed);
    let plan = decide(&cluster, &observed);
    assert_eq!(
        (actions(&plan), reasons(&plan)),
        (
            (0..3).map(|n| format!("grow data-demo-{n} claim-{n} to 20Gi")).collect(),
            vec![Reason::VolumesGrowing]
        )
    );
    // The operator died in the middle.
    observed.claims[0].requested = "20480Mi".to_owned();
    let plan = decide(&cluster, &observed);
    assert_eq!(actions(&plan), ["grow data-demo-1 claim-1 to 20Gi", "grow data-demo-2 claim-2 to 20Gi"]);

    // A claim without a volume cannot be changed yet.
    observed.claims[1].bound = false;
    assert_eq!(actions(&decide(&cluster, &observed)), ["grow data-demo-2 claim-2 to 20Gi"]);
    observed.claims[2].requested = "20Gi".to_owned();
    let plan = decide(&cluster, &observed);
    assert_eq!((actions(&plan), reasons(&plan)), (vec![], vec![Reason::VolumesGrowing]));

    grown(&mut observed);
    let plan = decide(&cluster, &observed);
    assert_eq!(
        (actions(&plan), reasons(&plan)),
        (vec!["orphan the pods of demo set-1".to_owned()], vec![Reason::ReplacingStatefulSet])
    );

    // On its way: the pods run on, and nothing is applied to what goes.
    let now = k8s_openapi::jiff::Timestamp::UNIX_EPOCH;
    let set = observed.existing.stateful_set.as_mut().unwrap();
    set.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
    let plan = decide(&cluster, &observed);
    assert_eq!(actions(&plan), Vec::<String>::new());
    assert_eq!(reasons(&plan), [Reason::ReplacingStatefulSet]);

    observed.existing.stateful_set = None;
    let plan = decide(&cluster, &observed);
    assert_eq!((actions(&plan), reasons(&plan)), (vec!["apply StatefulSet demo".to_owned()], vec![]));
    assert_eq!(plan.cluster.storage.size, "20Gi");

    let mut observed = at_rest(&cluster);
    grown(&mut observed);
    let plan = decide(&cluster, &observed);
    assert_eq!((actions(&plan), reasons(&plan)), (vec![], vec![]));
}

#[test]
fn the_stateful_set_is_not_taken_away_while_a_pod_may_need_it() {
    let cluster = larger(|_| {});
    for terminating in [false, true] {
        let mut observed = small(Growth::Allowed);
        grown(&mut observed);
        (observed.pods[1].ready, observed.pods[1].terminating) = (terminating, terminating);
        let plan = decide(&cluster, &observed);
        assert_eq!(actions(&plan), Vec::<String>::new());
        let message =
            &plan.findings.iter().find(|f| f.reason == Reason::ReplacingStatefulSet).unwrap().message;
        assert!(message.ends_with("waits for demo-1 to be ready"), "{message}");
    }
    // One that is not there is not ready either.
    let mut observed = small(Growth::Allowed);
    grown(&mut observed);
    observed.pods.remove(2);
    let plan = decide(&cluster, &observed);
    assert_eq!(actions(&plan), Vec::<String>::new());
    // Nor while a pod has an older template: the pods tell what the new one must be.
    let mut observed = small(Growth::Allowed);
    grown(&mut observed);
    observed.pods[0].revision = Some("r0".to_owned());
    says(&mut observed, 1, |node| node.transition.partitions_syncing = 1);
    assert_eq!(actions(&decide(&cluster, &observed)), Vec::<String>::new());
    // Nor while something else is to be done to it.
    let more = larger(|spec| spec.zones.spread = crate::crd::Spread::Required);
    let mut observed = small(Growth::Allowed);
    grown(&mut observed);
    assert_eq!(actions(&decide(&more, &observed)), ["apply StatefulSet demo"]);
}

#[test]
fn where_one_volume_cannot_grow_none_does() {
    let cluster = larger(|_| {});
    for (growth, clause) in [
        (Growth::Refused, "StorageClass fast does not allow it (allowVolumeExpansion)"),
        (Growth::Unknown, "StorageClass fast does not exist or cannot be read"),
    ] {
        let mut observed = small(Growth::Allowed);
        observed.claims[1].growth = growth;
        let plan = decide(&cluster, &observed);
        assert_eq!((actions(&plan), reasons(&plan)), (vec![], vec![Reason::VolumesCannotGrow]));
        let message = &plan.findings[0].message;
        assert!(message.contains("data-demo-1") && message.contains(clause), "{message}");
    }
}

#[test]
fn what_the_storage_driver_does_is_said() {
    let cluster = validated("demo", |_| {});
    let mut observed = at_rest(&cluster);
    observed.claims[2].capacity = Some("5Gi".to_owned());
    observed.claims[2].step = Some("FileSystemResizePending".to_owned());
    let plan = decide(&cluster, &observed);
    assert_eq!((actions(&plan), reasons(&plan)), (vec![], vec![Reason::VolumesGrowing]));
    let message = &plan.findings[0].message;
    assert!(message.contains("(data-demo-2: FileSystemResizePending)"), "{message}");
}

#[test]
fn a_volume_that_a_node_left_behind_or_that_is_larger_is_left_alone() {
    let cluster = validated("demo", |_| {});
    let mut observed = at_rest(&cluster);
    observed.claims[1].requested = "50Gi".to_owned();
    observed.claims[1].capacity = Some("50Gi".to_owned());
    let mut left = observed.claims[0].clone();
    (left.ordinal, left.requested, left.growth) = (7, "5Gi".to_owned(), Growth::Allowed);
    observed.claims.push(left);
    let plan = decide(&cluster, &observed);
    assert_eq!((actions(&plan), reasons(&plan)), (vec![], vec![]));
}

/// What the StatefulSet alone said is read from its pods.
#[test]
fn the_stateful_set_that_is_made_again_restarts_no_pod() {
    let mut cluster = larger(|_| {});
    let mut observed = small(Growth::Allowed);
    grown(&mut observed);
    let time = "2026-01-01T00:00:00Z";
    observed.pods.iter_mut().for_each(|pod| pod.restarted_at = Some(time.to_owned()));
    observed.existing.stateful_set = None;
    // The operator was upgraded in the middle.
    let image = std::mem::replace(&mut cluster.image.reference, "quorate/node:newer".to_owned());
    let mut existing = Existing::default();
    absorb(&mut existing, &decide(&cluster, &observed));
    let template = existing.stateful_set.as_ref().unwrap().spec.template.clone();
    assert_eq!(template.metadata.unwrap().annotations.unwrap()[names::RESTARTED_AT], time);
    assert_eq!(template.spec.unwrap().containers[0].image.as_ref(), Some(&image));
    // And nothing of it changes when it is there.
    observed.existing.stateful_set = existing.stateful_set;
    assert_eq!(actions(&decide(&cluster, &observed)), Vec::<String>::new());
}

/// A smaller number alone takes no pod away, also not by way of a StatefulSet that is made again with fewer.
#[test]
fn the_stateful_set_that_is_made_again_has_a_pod_for_each_that_runs() {
    let mut observed = at_rest(&validated("demo", |spec| spec.nodes = 5));
    observed.existing.stateful_set = None;
    if let RingState::Present(ring) = &mut observed.ring {
        ring.epoch = None;
    }
    let mut existing = Existing::default();
    absorb(&mut existing, &decide(&validated("demo", |_| {}), &observed));
    assert_eq!(existing.stateful_set.unwrap().spec.replicas, Some(5));
}
