//! Names and values of a stream, compressed with a dictionary that both ends know.
//!
//! What we send is stored, not compressed: that is valid for every reader, needs no memory, and header blocks are a
//! few bytes. What we read is inflated.

use std::sync::LazyLock;

use flate2::{Decompress, FlushDecompress};

use super::frame::{CONTROL_MAX, number};
use crate::StreamError;

/// The first words of the dictionary, each preceded by its length (SPDY/3 draft, section 2.6.10.1).
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
    accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
    content-length content-location content-md5 content-range content-type date etag expect expires from host \
    if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
    proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
    user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie \
    keep-alive origin";

/// The rest of the dictionary.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 \
    Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
    404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug \
    Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,\
    application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,\
    sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut bytes = Vec::new();
    for word in WORDS.split(' ') {
        let word = word.replace('_', " ");
        bytes.extend_from_slice(&(word.len() as u32).to_be_bytes());
        bytes.extend_from_slice(word.as_bytes());
    }
    bytes.extend_from_slice(TAIL.as_bytes());
    bytes
});

/// The most pairs that a stream may have.
const PAIRS_MAX: u32 = 128;

/// Names (in lower case) and values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    pub fn new(pairs: &[(&str, &str)]) -> Self {
        Self(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    /// The value of a name; empty when there is none.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    fn read(block: &[u8]) -> Result<Self, StreamError> {
        let count = number(block, 0)?;
        if count > PAIRS_MAX {
            return Err(StreamError::Protocol("too many SPDY headers"));
        }
        let mut at = 4;
        let mut pairs = Vec::new();
        for _ in 0..count {
            let name = text(block, &mut at)?.to_ascii_lowercase();
            let value = text(block, &mut at)?;
            // Several values of one name are separated by NUL; the first counts.
            let value = value.split('\0').next().unwrap_or_default().to_owned();
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    fn write(&self) -> Vec<u8> {
        let mut block = (self.0.len() as u32).to_be_bytes().to_vec();
        for text in self.0.iter().flat_map(|(name, value)| [name, value]) {
            block.extend_from_slice(&(text.len() as u32).to_be_bytes());
            block.extend_from_slice(text.as_bytes());
        }
        block
    }
}

fn text(block: &[u8], at: &mut usize) -> Result<String, StreamError> {
    let length = number(block, *at)? as usize;
    let start = *at + 4;
    let bytes = start.checked_add(length).and_then(|end| block.get(start..end));
    let bytes = bytes.ok_or(StreamError::Protocol("a SPDY header that is cut off"))?;
    *at = start + length;
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// Reads header blocks, which share one compressed stream.
pub struct Inflater {
    stream: Decompress,
}

impl Inflater {
    pub fn new() -> Self {
        Self { stream: Decompress::new(true) }
    }

    pub fn read(&mut self, mut block: &[u8]) -> Result<Headers, StreamError> {
        let mut out = Vec::with_capacity(1024);
        loop {
            let (read_before, written_before) = (self.stream.total_in(), out.len());
            let result = self.stream.decompress_vec(block, &mut out, FlushDecompress::Sync);
            let read = self.stream.total_in() - read_before;
            block = &block[(read as usize).min(block.len())..];
            match result {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.stream.set_dictionary(&DICTIONARY).map_err(|_| broken())?;
                    continue;
                }
                Err(_) => return Err(broken()),
                Ok(_) => {}
            }
            if out.len() == out.capacity() {
                if out.len() > CONTROL_MAX {
                    return Err(StreamError::Protocol("SPDY headers that are too long"));
                }
                out.reserve(out.len());
            } else if block.is_empty() || (read == 0 && out.len() == written_before) {
                return Headers::read(&out);
            }
        }
    }
}

fn broken() -> StreamError {
    StreamError::Protocol("SPDY headers that cannot be inflated")
}

/// Writes header blocks.
#[derive(Default)]
pub struct Storer {
    started: bool,
}

impl Storer {
    /// A header block: in the first the head of a zlib stream without dictionary, then a stored block, then the empty
    /// stored block that makes readers hand out what they have.
    pub fn write(&mut self, headers: &Headers) -> Result<Vec<u8>, StreamError> {
        let block = headers.write();
        let length = u16::try_from(block.len()).map_err(|_| StreamError::Protocol("headers too long"))?;
        let mut out = Vec::with_capacity(block.len() + 12);
        if !std::mem::replace(&mut self.started, true) {
            out.extend_from_slice(&[0x78, 0x01]);
        }
        out.push(0);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(&block);
        out.extend_from_slice(&[0, 0, 0, 0xff, 0xff]);
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(digit).collect()
    }

    #[test]
    fn the_dictionary_is_the_one_of_the_draft() {
        assert_eq!(DICTIONARY.len(), 1423);
        let (mut low, mut high) = (1u32, 0u32);
        for byte in DICTIONARY.iter() {
            low = (low + u32::from(*byte)) % 65521;
            high = (high + low) % 65521;
        }
        assert_eq!(high << 16 | low, 0xe3c6_a7c2);
    }

    #[test]
    fn blocks_that_zlib_made_with_the_dictionary_are_read() {
        let mut inflater = Inflater::new();
        let first = bytes("78bbe3c6a7c202a62346703a2b294a4dcc851625aca9a08006000000ffff");
        assert_eq!(inflater.read(&first).unwrap(), Headers::new(&[("streamtype", "error")]));
        let second = bytes("02651c0c2960624ec90797d1c022bb084433591800000000ffff");
        let expected = Headers::new(&[("streamtype", "stdout"), ("port", "80")]);
        assert_eq!(inflater.read(&second).unwrap(), expected);
    }

    #[test]
    fn what_is_written_is_read() {
        let (mut storer, mut inflater) = (Storer::default(), Inflater::new());
        for headers in [Headers::default(), Headers::new(&[("a", "b"), ("c", "")]), Headers::default()] {
            assert_eq!(inflater.read(&storer.write(&headers).unwrap()).unwrap(), headers);
        }
    }

    proptest::proptest! {
        #[test]
        fn hostile_blocks_are_errors(block: Vec<u8>) {
            let mut inflater = Inflater::new();
            let _either = inflater.read(&block);
            let _either = Headers::read(&block);
        }
    }
}
