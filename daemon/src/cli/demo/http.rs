//! The smallest HTTP/1.1 client that the daemon's socket needs: one blocking request per
//! connection.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::harness::Error;

/// Longest answer accepted: a list of 10,000 partitions fits.
const ANSWER_LEN_MAX: u64 = 64 << 20;

/// What the daemon said: the status, and the body as JSON (null if it is not JSON).
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

/// Sends one request and waits for the whole answer.
pub fn request(
    socket: &Path,
    method: &str,
    target: &str,
    body: Option<&Value>,
    timeout: Duration,
) -> Result<Answer, Error> {
    let failed = |error| Error::at("ask", socket, error);
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    stream.set_read_timeout(Some(timeout)).map_err(failed)?;
    stream.set_write_timeout(Some(timeout)).map_err(failed)?;
    let text = body.map(Value::to_string).unwrap_or_default();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    );
    stream.write_all(head.as_bytes()).map_err(failed)?;
    let mut bytes = Vec::new();
    stream
        .take(ANSWER_LEN_MAX)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    parse(&bytes).ok_or_else(|| {
        Error::new(format!(
            "{method} {target} at {}: no whole answer",
            socket.display()
        ))
    })
}

/// A name as one path segment (RFC 3986, section 2.1).
pub fn percent(name: &str) -> String {
    let mut escaped = String::new();
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let rest = &bytes[end + 4..];
    let fields: Vec<String> = head.lines().skip(1).map(str::to_ascii_lowercase).collect();
    let value_of = |name: &str| {
        fields
            .iter()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
    };
    let body = match (value_of("transfer-encoding"), value_of("content-length")) {
        (Some("chunked"), _) => dechunk(rest)?,
        (_, Some(length)) => rest.get(..length.parse().ok()?)?.to_vec(),
        _ => rest.to_vec(),
    };
    Some(Answer {
        status,
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    })
}

fn dechunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        let line = std::str::from_utf8(&rest[..end]).ok()?;
        let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        let start = end + 2;
        whole.extend_from_slice(rest.get(start..start.checked_add(size)?)?);
        rest = rest.get(start + size + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_say_where_a_body_ends_are_understood() {
        let plain = b"HTTP/1.1 202 Accepted\r\ncontent-length: 8\r\n\r\n{\"id\":7}";
        let chunked = b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n\
              3\r\n{\"i\r\n5\r\nd\":7}\r\n0\r\n\r\n";
        for bytes in [&plain[..], &chunked[..]] {
            let answer = parse(bytes).expect("whole");
            assert_eq!((answer.status, &answer.body["id"]), (202, &Value::from(7)));
        }
        assert!(
            parse(&plain[..plain.len() - 1]).is_none(),
            "a cut body is no answer"
        );
        assert!(
            parse(&chunked[..chunked.len() - 6]).is_none(),
            "a cut chunk is no answer"
        );
    }

    #[test]
    fn a_name_with_a_slash_is_one_segment() {
        assert_eq!(percent("eu/t 1.db"), "eu%2Ft%201.db");
    }
}
