//! `ImageLocality`: nodes that have the images already save a pull.

use crate::plugin::{SCORE_MAX, Score};
use crate::{NodeInfo, PodInfo, Snapshot};

/// Less than this is not worth a preference, more than the other is as good as it gets (upstream's bounds, bytes).
const LEAST: i64 = 23 << 20;
const MOST: i64 = 1000 << 20;

pub struct ImageLocality;

impl Score for ImageLocality {
    fn weight(&self) -> i64 {
        1
    }

    fn score(&self, pod: &PodInfo, nodes: &[&NodeInfo], _: &Snapshot) -> Vec<i64> {
        let containers = pod.spec.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
        let wanted: Vec<&str> =
            containers.iter().filter_map(|container| container.image.as_deref()).collect();
        let score = |node: &&NodeInfo| {
            let images =
                node.node.status.as_ref().and_then(|status| status.images.as_deref()).unwrap_or_default();
            let has = |names: &Option<Vec<String>>| {
                names.iter().flatten().any(|name| wanted.iter().any(|wanted| is_same(name, wanted)))
            };
            let bytes: i64 =
                images.iter().filter(|image| has(&image.names)).filter_map(|image| image.size_bytes).sum();
            (bytes.clamp(LEAST, MOST) - LEAST) * SCORE_MAX / (MOST - LEAST)
        };
        nodes.iter().map(score).collect()
    }
}

/// `nginx` is `docker.io/library/nginx:latest`.
fn is_same(full: &str, wanted: &str) -> bool {
    let tagged = if wanted.rsplit('/').next().is_some_and(|last| last.contains([':', '@'])) {
        wanted.to_owned()
    } else {
        format!("{wanted}:latest")
    };
    full == tagged || full == format!("docker.io/{tagged}") || full == format!("docker.io/library/{tagged}")
}
