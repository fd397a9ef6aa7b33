//! Amounts of resources: what pods ask for and what nodes have.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use machinery::quantity::Quantity;

/// CPU in thousandths, everything else in units (bytes, pieces).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    pub cpu: i64,
    pub memory: i64,
    /// `ephemeral-storage`.
    pub storage: i64,
    /// Extended resources and huge pages, few or none.
    scalars: Vec<(Arc<str>, i64)>,
}

impl Amounts {
    /// Reads a `ResourceList`; `pods` is no resource that a pod can ask for, so it is a scalar like others.
    pub fn read<'a>(list: impl IntoIterator<Item = (&'a String, &'a Text)>) -> Self {
        let mut amounts = Self::default();
        for (name, text) in list {
            let quantity: Quantity = text.0.parse().unwrap_or_default();
            let amount = if name == "cpu" { quantity.milli_value() } else { quantity.value() };
            *amounts.slot(name) = amount;
        }
        amounts
    }

    fn slot(&mut self, name: &str) -> &mut i64 {
        match name {
            "cpu" => &mut self.cpu,
            "memory" => &mut self.memory,
            "ephemeral-storage" => &mut self.storage,
            other => {
                let found = self.scalars.iter().position(|(name, _)| **name == *other);
                let index = found.unwrap_or_else(|| {
                    self.scalars.push((Arc::from(other), 0));
                    self.scalars.len() - 1
                });
                &mut self.scalars[index].1
            }
        }
    }

    /// The amount of a resource; 0 if there is none.
    pub fn get(&self, name: &str) -> i64 {
        match name {
            "cpu" => self.cpu,
            "memory" => self.memory,
            "ephemeral-storage" => self.storage,
            other => self.scalars.iter().find(|(name, _)| **name == *other).map_or(0, |(_, amount)| *amount),
        }
    }

    /// The extended resources.
    pub fn scalars(&self) -> impl Iterator<Item = (&str, i64)> {
        self.scalars.iter().map(|(name, amount)| (&**name, *amount))
    }

    /// Whether nothing is asked for.
    pub fn is_zero(&self) -> bool {
        self.cpu == 0
            && self.memory == 0
            && self.storage == 0
            && self.scalars.iter().all(|(_, amount)| *amount == 0)
    }

    pub fn add(&mut self, more: &Self) {
        self.cpu += more.cpu;
        self.memory += more.memory;
        self.storage += more.storage;
        for (name, amount) in &more.scalars {
            *self.slot(name) += amount;
        }
    }

    pub fn subtract(&mut self, less: &Self) {
        self.cpu -= less.cpu;
        self.memory -= less.memory;
        self.storage -= less.storage;
        for (name, amount) in &less.scalars {
            *self.slot(name) -= amount;
        }
    }

    /// Raises each amount to that of `other` where it is larger.
    pub fn raise(&mut self, other: &Self) {
        self.cpu = self.cpu.max(other.cpu);
        self.memory = self.memory.max(other.memory);
        self.storage = self.storage.max(other.storage);
        for (name, amount) in &other.scalars {
            let slot = self.slot(name);
            *slot = (*slot).max(*amount);
        }
    }

    /// Takes over the amounts that `list` names.
    pub fn replace(&mut self, list: &BTreeMap<String, Text>) {
        let given = Self::read(list);
        for name in list.keys() {
            *self.slot(name) = given.get(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_add_up_by_name() {
        let read = |list: &[(&str, &str)]| {
            let list: BTreeMap<String, Text> =
                list.iter().map(|(name, text)| ((*name).to_owned(), Text((*text).to_owned()))).collect();
            Amounts::read(&list)
        };
        let mut sum = read(&[("cpu", "1500m"), ("example.com/gpu", "1")]);
        sum.add(&read(&[
            ("cpu", "1"),
            ("memory", "1Ki"),
            ("example.com/gpu", "2"),
            ("hugepages-2Mi", "2Mi"),
        ]));
        assert_eq!((sum.cpu, sum.memory, sum.get("example.com/gpu")), (2500, 1024, 3));
        sum.raise(&read(&[("cpu", "1"), ("example.com/gpu", "5")]));
        assert_eq!((sum.cpu, sum.get("example.com/gpu")), (2500, 5));
        sum.subtract(&read(&[("hugepages-2Mi", "2Mi")]));
        assert_eq!(sum.get("hugepages-2Mi"), 0);
    }
}
