//! Bodies of requests and answers.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response, StatusCode, header};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use machinery::Status;

/// The largest request body, as upstream.
pub const BODY_MAX: usize = 3 * 1024 * 1024;
/// How much of a body that is too large is read to be thrown away.
const DISCARD_MAX: usize = 32 * 1024 * 1024;
/// Answers larger than this are compressed when the client accepts it, as upstream.
const COMPRESS_FROM: usize = 128 * 1024;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of an answer: whole or a stream.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A body that is whole.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// An answer with a whole body.
pub fn response(code: u16, content_type: &str, bytes: impl Into<Bytes>) -> Response<Body> {
    with_body(code, content_type, full(bytes))
}

/// An answer whose body is made while it is sent.
pub fn streamed(
    code: u16,
    content_type: &str,
    pieces: impl Iterator<Item = Bytes> + Send + 'static,
) -> Response<Body> {
    let frames = futures::stream::iter(pieces.map(|piece| Ok::<_, BoxError>(Frame::data(piece))));
    with_body(code, content_type, StreamBody::new(frames).boxed_unsync())
}

fn with_body(code: u16, content_type: &str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Ok(value) = content_type.parse() {
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-cache, private"));
    response
}

/// Reads a request's body up to the limit.
pub async fn read(mut body: Incoming) -> Result<Bytes, Status> {
    let declared = body.size_hint().lower();
    let mut all = BytesMut::new();
    let mut length = 0;
    // What is too large is still taken in, up to a bound: most clients read no answer before they have sent it all.
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| Status::bad_request(format!("the body could not be read: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        if length > BODY_MAX {
            all = BytesMut::new();
        } else {
            all.extend_from_slice(&data);
        }
        if length > DISCARD_MAX || declared > DISCARD_MAX as u64 {
            break;
        }
    }
    let is_too_large = length > BODY_MAX || declared > BODY_MAX as u64;
    if is_too_large { Err(Status::too_large(format!("limit is {BODY_MAX}"))) } else { Ok(all.freeze()) }
}

/// Compresses a large whole answer if the client accepts gzip.
pub fn compress(bytes: Vec<u8>, headers: &HeaderMap) -> (Vec<u8>, bool) {
    if bytes.len() < COMPRESS_FROM || !accepts_gzip(headers) {
        return (bytes, false);
    }
    use std::io::Write;
    let mut encoder =
        flate2::write::GzEncoder::new(Vec::with_capacity(bytes.len() / 4), flate2::Compression::fast());
    match encoder.write_all(&bytes).and_then(|()| encoder.finish()) {
        Ok(small) => (small, true),
        // Writing to memory does not fail; if it does, the plain bytes are as good.
        Err(_impossible) => (bytes, false),
    }
}

/// Whether a client takes compressed answers.
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|value| {
        let mut parts = value.split(';').map(str::trim);
        parts.next() == Some("gzip") && parts.next() != Some("q=0")
    })
}
