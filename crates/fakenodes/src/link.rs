//! The link between a node and the API.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;

/// What a node's link does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    #[default]
    Up,
    /// What the node sends arrives this much later.
    Slow(Duration),
    /// Nothing arrives, either way; the node's pods go on.
    Cut,
}

/// The links of all nodes, by number. Clones are the same links.
#[derive(Clone)]
pub struct Links {
    shared: Arc<Shared>,
}

struct Shared {
    links: Mutex<Vec<Link>>,
    mended: mpsc::UnboundedSender<usize>,
    receiver: Mutex<Option<mpsc::UnboundedReceiver<usize>>>,
}

impl Links {
    pub fn new(count: usize) -> Self {
        let (mended, receiver) = mpsc::unbounded_channel();
        let links = Mutex::new(vec![Link::Up; count]);
        Self { shared: Arc::new(Shared { links, mended, receiver: Mutex::new(Some(receiver)) }) }
    }

    /// What the link of a node does.
    pub fn get(&self, node: usize) -> Link {
        self.shared.links.lock().get(node).copied().unwrap_or_default()
    }

    /// Changes the link of a node. One that is mended brings the node up to date.
    pub fn set(&self, node: usize, link: Link) {
        let before = match self.shared.links.lock().get_mut(node) {
            Some(slot) => std::mem::replace(slot, link),
            None => return,
        };
        if before == Link::Cut && link != Link::Cut {
            // Without a runner there is nothing to bring up to date.
            let _nobody_runs = self.shared.mended.send(node);
        }
    }

    /// Waits as long as the link takes; `false` if it is cut.
    pub async fn pass(&self, node: usize) -> bool {
        if let Link::Slow(delay) = self.get(node) {
            tokio::time::sleep(delay).await;
        }
        self.get(node) != Link::Cut
    }

    /// Nodes whose links were mended. Only the first caller gets them.
    pub(crate) fn mended(&self) -> Option<mpsc::UnboundedReceiver<usize>> {
        self.shared.receiver.lock().take()
    }
}
