//! Complaints in the order of the document, as upstream's decoder makes them while it reads.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::path::Path;

const UNKNOWN: &str = "unknown field \"";
const DUPLICATE: &str = "duplicate field \"";

/// Sorts complaints of strict decoding by where in the JSON document they arise. An unknown field is not complained
/// about a second time when it is also a duplicate. What is no JSON leaves the order as it is.
pub fn in_order(document: &[u8], complaints: Vec<String>) -> Vec<String> {
    let places: Places =
        complaints.iter().filter_map(|text| Some((path_of(text)?.to_owned(), Vec::new()))).collect();
    let mut walked = Walked { places, count: 0 };
    let mut source = serde_json::Deserializer::from_slice(document);
    if (Walk { path: Path::Root, walked: &mut walked }).deserialize(&mut source).is_err() {
        return complaints;
    }
    let is_unknown = |text: &str| text.starts_with(UNKNOWN);
    let unknown: Vec<String> = complaints
        .iter()
        .filter(|text| is_unknown(text))
        .filter_map(|text| path_of(text).map(str::to_owned))
        .collect();
    let twice = |text: &str| {
        text.starts_with(DUPLICATE)
            && path_of(text).is_some_and(|path| unknown.iter().any(|known| known == path))
    };
    let mut placed: Vec<(usize, String)> = complaints
        .into_iter()
        .filter(|text| !twice(text))
        .map(|text| {
            let places = path_of(&text).and_then(|path| walked.places.get(path)).map(Vec::as_slice);
            let nth = usize::from(!is_unknown(&text));
            let at = places.and_then(|places| places.get(nth).or(places.first())).copied();
            // What names no field (of YAML) comes first.
            (at.unwrap_or(0), text)
        })
        .collect();
    placed.sort_by_key(|(at, _)| *at);
    placed.into_iter().map(|(_, text)| text).collect()
}

fn path_of(complaint: &str) -> Option<&str> {
    let rest = complaint.strip_prefix(UNKNOWN).or(complaint.strip_prefix(DUPLICATE))?;
    rest.strip_suffix('"')
}

/// Where the fields stand that are looked for.
type Places = BTreeMap<String, Vec<usize>>;

struct Walked {
    places: Places,
    count: usize,
}

struct Walk<'a> {
    path: Path<'a>,
    walked: &'a mut Walked,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<(), D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let mut index = 0;
        loop {
            let path = Path::Index(&self.path, index);
            if items.next_element_seed(Walk { path, walked: self.walked })?.is_none() {
                return Ok(());
            }
            index += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(key) = entries.next_key::<String>()? {
            let path = Path::Field(&self.path, &key);
            self.walked.count += 1;
            let at = self.walked.count;
            if let Some(places) = self.walked.places.get_mut(&path.to_string()) {
                places.push(at);
            }
            entries.next_value_seed(Walk { path, walked: &mut *self.walked })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_follow_the_document() {
        let document = br#"{"b":1,"spec":{"x":1,"x":2,"replicas":1,"replicas":2,"list":[{},{"y":1}]},"a":2}"#;
        let complaints = [
            "duplicate field \"spec.x\"",
            "duplicate field \"spec.replicas\"",
            "unknown field \"a\"",
            "unknown field \"b\"",
            "unknown field \"spec.list[1].y\"",
            "unknown field \"spec.x\"",
        ];
        assert_eq!(
            in_order(document, complaints.map(str::to_owned).to_vec()),
            [
                "unknown field \"b\"",
                "unknown field \"spec.x\"",
                "duplicate field \"spec.replicas\"",
                "unknown field \"spec.list[1].y\"",
                "unknown field \"a\"",
            ]
        );
        let two = vec!["unknown field \"b\"".to_owned(), "unknown field \"a\"".to_owned()];
        assert_eq!(in_order(b"a: 1\nb: 1", two.clone()), two);
    }
}
