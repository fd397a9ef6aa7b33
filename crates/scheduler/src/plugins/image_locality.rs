//! `ImageLocality`: a node that has the images already starts the pod sooner. An image that is on few nodes counts
//! less, so that its nodes do not draw all pods.

use crate::NodeInfo;
use crate::plugin::{Context, SCORE_MAX, Score};

/// Less than this is not worth a preference, more than the other (per image) is as good as it gets: upstream's
/// bounds, in bytes.
const LEAST: i64 = 23 << 20;
const MOST: i64 = 1000 << 20;

struct ImageLocality<'a> {
    images: Vec<(&'a str, f64)>,
}

pub fn score<'a>(context: Context<'a>) -> Option<Box<dyn Score + 'a>> {
    if !context.snapshot.has_images() {
        return None;
    }
    let all = context.snapshot.nodes().len().max(1) as f64;
    let share = |image: &'a String| {
        let share = context.snapshot.nodes_with_image(image) as f64 / all;
        (share > 0.0).then_some((image.as_str(), share))
    };
    let images: Vec<_> = context.pod.wish().images.iter().filter_map(share).collect();
    (!images.is_empty()).then(|| Box::new(ImageLocality { images }) as Box<dyn Score>)
}

impl Score for ImageLocality<'_> {
    fn score(&self, nodes: &[&NodeInfo]) -> Vec<i64> {
        let most = MOST * self.images.len() as i64;
        let score = |node: &&NodeInfo| {
            let bytes = |(image, share): &(&str, f64)| {
                node.images.get(*image).map_or(0, |size| (*size as f64 * share) as i64)
            };
            let sum: i64 = self.images.iter().map(bytes).sum();
            (sum.clamp(LEAST, most) - LEAST) * SCORE_MAX / (most - LEAST)
        };
        nodes.iter().map(score).collect()
    }
}
