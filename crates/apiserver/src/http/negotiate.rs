//! Which form an answer takes: from `Accept` to a media type and a shape. Pure.

use machinery::Status;

/// A media type that the server reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    Json,
    Yaml,
    Protobuf,
}

/// What is made of an object before it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Object,
    /// `as=Table`.
    Table,
    /// `as=PartialObjectMetadata` or `as=PartialObjectMetadataList`.
    Partial,
}

/// The outcome of a negotiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub media: Media,
    pub shape: Shape,
}

/// What error messages list.
pub const SUPPORTED: [&str; 3] =
    ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

impl Media {
    /// The name in `Content-Type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        match name {
            "" | "application/json" => Some(Self::Json),
            "application/yaml" | "application/x-yaml" | "text/yaml" => Some(Self::Yaml),
            "application/vnd.kubernetes.protobuf" => Some(Self::Protobuf),
            _ => None,
        }
    }

    /// Of a request's `Content-Type`; none given is JSON.
    pub fn of_body(content_type: &str) -> Result<Self, Status> {
        let name = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        Self::parse(&name).ok_or_else(|| Status::unsupported_media_type(&SUPPORTED))
    }
}

/// One alternative of an `Accept` header.
struct Clause<'a> {
    name: String,
    parameters: Vec<(&'a str, &'a str)>,
    quality: f32,
}

/// The alternatives of a header, best first.
fn clauses(accept: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<_> = accept
        .split(',')
        .filter(|clause| !clause.trim().is_empty())
        .map(|clause| {
            let mut parts = clause.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            let parameters: Vec<_> = parts.filter_map(|part| part.split_once('=')).collect();
            let quality = parameters.iter().find(|(key, _)| *key == "q").and_then(|(_, q)| q.parse().ok());
            Clause { name, parameters, quality: quality.unwrap_or(1.0) }
        })
        .collect();
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    clauses
}

impl Clause<'_> {
    fn parameter(&self, name: &str) -> &str {
        self.parameters.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    }
}

/// The form of an answer for resources. `converts`: whether the row has a tabular form and one of only metadata; what
/// is computed has neither.
pub fn negotiate(accept: &str, converts: bool) -> Result<Accepted, Status> {
    let clauses = clauses(accept);
    if clauses.is_empty() {
        return Ok(Accepted { media: Media::Json, shape: Shape::Object });
    }
    let mut accepted = clauses.iter().filter_map(accept_clause);
    accepted
        .find(|one| converts || one.shape == Shape::Object)
        .ok_or_else(|| Status::not_acceptable(&SUPPORTED))
}

fn accept_clause(clause: &Clause<'_>) -> Option<Accepted> {
    let media = match clause.name.as_str() {
        "*/*" | "application/*" => Media::Json,
        name => Media::parse(name).filter(|_| !name.is_empty())?,
    };
    let known_version = clause.parameter("g") == "meta.k8s.io" && clause.parameter("v") == "v1";
    let shape = match clause.parameter("as") {
        "" => Shape::Object,
        "Table" if known_version => Shape::Table,
        "PartialObjectMetadata" | "PartialObjectMetadataList" if known_version => Shape::Partial,
        _ => return None,
    };
    Some(Accepted { media, shape })
}

/// Whether `Accept` prefers aggregated discovery (v2), and the media type otherwise.
pub fn negotiate_discovery(accept: &str) -> Result<(bool, Media), Status> {
    for clause in clauses(accept) {
        if clause.parameter("as") == "APIGroupDiscoveryList" {
            let known = clause.parameter("g") == "apidiscovery.k8s.io" && clause.parameter("v") == "v2";
            if known && clause.name == "application/json" {
                return Ok((true, Media::Json));
            }
            continue;
        }
        if let Some(accepted) = accept_clause(&clause) {
            return Ok((false, accepted.media));
        }
    }
    if accept.trim().is_empty() { Ok((false, Media::Json)) } else { Err(Status::not_acceptable(&SUPPORTED)) }
}

/// The form of an error: like the answer would have, JSON when that cannot be found out.
pub fn for_errors(accept: &str) -> Media {
    negotiate(accept, true).map_or(Media::Json, |accepted| accepted.media)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_headers() {
        let show = |accept: &str| {
            negotiate(accept, true).map(|a| format!("{:?} {:?}", a.media, a.shape)).map_err(|s| s.code)
        };
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let cases = [
            ("", Ok("Json Object")),
            ("*/*", Ok("Json Object")),
            (kubectl, Ok("Json Table")),
            ("application/vnd.kubernetes.protobuf,application/json", Ok("Protobuf Object")),
            ("application/json;stream=watch", Ok("Json Object")),
            ("application/yaml;q=0.9, application/json;q=0.1", Ok("Yaml Object")),
            ("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", Ok("Json Partial")),
            ("application/json;as=Table;v=v1alpha1;g=meta.k8s.io", Err(406)),
            ("text/html", Err(406)),
        ];
        for (accept, expected) in cases {
            assert_eq!(show(accept), expected.map(str::to_owned), "{accept}");
        }
        assert_eq!(negotiate(kubectl, false).unwrap().shape, Shape::Object);
        assert_eq!(negotiate("application/json;as=Table;v=v1;g=meta.k8s.io", false).unwrap_err().code, 406);
    }

    #[test]
    fn discovery_prefers_what_is_asked_for() {
        let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert_eq!(negotiate_discovery(aggregated).unwrap(), (true, Media::Json));
        assert_eq!(negotiate_discovery("application/json").unwrap(), (false, Media::Json));
        assert_eq!(negotiate_discovery("").unwrap(), (false, Media::Json));
    }

    #[test]
    fn bodies() {
        assert_eq!(Media::of_body("application/json; charset=utf-8").unwrap(), Media::Json);
        assert_eq!(Media::of_body("").unwrap(), Media::Json);
        assert_eq!(Media::of_body("text/plain").unwrap_err().code, 415);
    }
}
