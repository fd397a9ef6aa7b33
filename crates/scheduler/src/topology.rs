//! The nodes' values of one label, numbered.

use std::collections::HashMap;

use crate::NodeInfo;

/// No value.
const NONE: u32 = u32::MAX;

/// For each node the number of its value of a label.
pub struct Topology {
    of: Vec<u32>,
    numbers: HashMap<Box<str>, u32>,
}

impl Topology {
    pub fn of(key: &str, nodes: &[NodeInfo]) -> Self {
        let mut numbers: HashMap<Box<str>, u32> = HashMap::new();
        let mut of = Vec::with_capacity(nodes.len());
        for node in nodes {
            let number = node.labels().get(key).map(|value| {
                let next = u32::try_from(numbers.len()).unwrap_or(NONE - 1);
                numbers.get(value.as_str()).copied().unwrap_or_else(|| {
                    numbers.insert(value.as_str().into(), next);
                    next
                })
            });
            of.push(number.unwrap_or(NONE));
        }
        Self { of, numbers }
    }

    /// The number of a node's value, if it has the label.
    pub fn value(&self, node: usize) -> Option<usize> {
        self.of.get(node).filter(|value| **value != NONE).map(|value| *value as usize)
    }

    /// The number of a value, if any node has it.
    pub fn number(&self, value: &str) -> Option<usize> {
        self.numbers.get(value).map(|number| *number as usize)
    }

    /// How many different values there are.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }
}
