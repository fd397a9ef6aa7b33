//! Sets of completion indexes in their written form, `1,3-5,7`.

use std::collections::BTreeSet;
use std::fmt;

/// A set of completion indexes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indexes(BTreeSet<i32>);

impl Indexes {
    /// Reads the written form; what cannot be read or is not below `completions` is left out.
    pub fn parse(text: &str, completions: i32) -> Self {
        let mut found = BTreeSet::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(first), Ok(last)) = (first.trim().parse::<i32>(), last.trim().parse::<i32>()) {
                found.extend(first.max(0)..=last.min(completions - 1));
            }
        }
        Self(found)
    }

    pub fn insert(&mut self, index: i32) {
        self.0.insert(index);
    }

    pub fn contains(&self, index: i32) -> bool {
        self.0.contains(&index)
    }

    pub fn len(&self) -> i32 {
        i32::try_from(self.0.len()).unwrap_or(i32::MAX)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = i32> {
        self.0.iter().copied()
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut runs: Vec<(i32, i32)> = Vec::new();
        for index in self.iter() {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == index => *last = index,
                _ => runs.push((index, index)),
            }
        }
        let run = |(first, last): (i32, i32)| match last - first {
            0 => first.to_string(),
            1 => format!("{first},{last}"),
            _ => format!("{first}-{last}"),
        };
        out.write_str(&runs.into_iter().map(run).collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_and_read() {
        for (text, count, back) in [
            ("", 0, ""),
            ("0", 1, "0"),
            ("0,1", 2, "0,1"),
            ("0-1", 2, "0,1"),
            ("1,3-5,7", 5, "1,3-5,7"),
            ("3,4,5", 3, "3-5"),
            ("7-12", 3, "7-9"),
            ("x,2,-4", 1, "2"),
        ] {
            let indexes = Indexes::parse(text, 10);
            assert_eq!((indexes.len(), indexes.to_string().as_str()), (count, back), "{text}");
        }
    }
}
