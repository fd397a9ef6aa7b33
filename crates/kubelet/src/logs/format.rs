//! The CRI log format: `TIMESTAMP STREAM TAG CONTENT`, one line per record, `P` for parts of longer lines.

/// A record of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// RFC 3339 with nanoseconds.
    pub time: &'a str,
    /// `stdout` or `stderr`.
    pub stream: &'a str,
    /// More of the same line follows.
    pub partial: bool,
    pub content: &'a [u8],
}

/// Reads one line, without its line end.
pub fn parse(line: &[u8]) -> Option<Record<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let mut text = || std::str::from_utf8(parts.next()?).ok();
    let (time, stream, tag) = (text()?, text()?, text()?);
    let partial = tag.split(':').next() == Some("P");
    Some(Record { time, stream, partial, content: parts.next().unwrap_or_default() })
}

/// What a line says, with its line end unless it is a part.
pub fn content(line: &str) -> Option<String> {
    let record = parse(line.as_bytes())?;
    let end = if record.partial { "" } else { "\n" };
    Some(format!("{}{end}", String::from_utf8_lossy(record.content)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let time = "2026-11-21T05:00:00.000000001Z";
        let check = |rest: &str, want: Option<(&str, bool, &str)>| {
            let line = format!("{time} {rest}");
            let got = parse(line.as_bytes());
            let want = want.map(|(stream, partial, text)| Record {
                time,
                stream,
                partial,
                content: text.as_bytes(),
            });
            assert_eq!(got, want, "{rest}");
        };
        check("stdout F hello world", Some(("stdout", false, "hello world")));
        check("stderr P part", Some(("stderr", true, "part")));
        check("stdout F ", Some(("stdout", false, "")));
        check("stdout F:x  two spaces", Some(("stdout", false, " two spaces")));
        check("stdout", None);
        assert_eq!(content(&format!("{time} stdout P x")).unwrap(), "x");
        assert_eq!(content(&format!("{time} stdout F x")).unwrap(), "x\n");
    }
}
