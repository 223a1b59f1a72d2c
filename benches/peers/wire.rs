//! The smallest client of PostgreSQL that a bench needs: simple queries over a Unix socket
//! (PostgreSQL documentation, chapter "Frontend/Backend Protocol", version 3.0), trusted by the
//! server that the bench itself has started.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use foreshadow::cli::demo::harness::Error;

const VERSION: i32 = 3 << 16;
const LIMIT: Duration = Duration::from_secs(120);
/// No answer that the bench asks for is nearly as long.
const MESSAGE_MAX: usize = 1 << 20;

/// A connection as user and to database `postgres`.
pub struct Connection {
    stream: UnixStream,
}

impl Connection {
    pub fn open(socket: &Path) -> Result<Connection, Error> {
        let failed = |error| Error::at("connect to", socket, error);
        let stream = UnixStream::connect(socket).map_err(failed)?;
        stream.set_read_timeout(Some(LIMIT)).map_err(failed)?;
        let mut connection = Connection { stream };
        let parameters = b"user\0postgres\0database\0postgres\0\0";
        let length = (parameters.len() + 8) as i32;
        let start = [
            &length.to_be_bytes()[..],
            &VERSION.to_be_bytes(),
            parameters,
        ]
        .concat();
        connection.send(&start)?;
        connection.answer()?;
        Ok(connection)
    }

    /// The rows of one query, as text; the error of the server if it has one.
    pub fn query(&mut self, sql: &str) -> Result<Vec<Vec<String>>, Error> {
        let length = (sql.len() + 5) as i32;
        let message = [b"Q", &length.to_be_bytes()[..], sql.as_bytes(), b"\0"].concat();
        self.send(&message)?;
        self.answer()
    }

    /// The only value of one query.
    pub fn value(&mut self, sql: &str) -> Result<String, Error> {
        let value = self.query(sql)?.into_iter().flatten().next();
        value.ok_or_else(|| Error::new(format!("no answer: {sql}")))
    }

    fn send(&mut self, message: &[u8]) -> Result<(), Error> {
        let sent = self.stream.write_all(message);
        sent.map_err(|error| Error::new(format!("postgres: {error}")))
    }

    /// Reads until the server is ready for a query.
    fn answer(&mut self) -> Result<Vec<Vec<String>>, Error> {
        let (mut rows, mut error) = (Vec::new(), None);
        loop {
            let (kind, body) = self.message()?;
            match kind {
                b'D' => rows.push(fields(&body)),
                b'E' => error = Some(Error::new(format!("postgres: {}", told(&body)))),
                b'R' if body != [0; 4] => return Err(Error::new("postgres wants a password")),
                b'Z' => return error.map_or(Ok(rows), Err),
                _ => {}
            }
            // The server hangs up after a fatal error and is never ready again.
            if let Some(error) = error.take_if(|_| kind == b'E' && body.starts_with(b"SFATAL")) {
                return Err(error);
            }
        }
    }

    fn message(&mut self) -> Result<(u8, Vec<u8>), Error> {
        let failed = |error| Error::new(format!("postgres: {error}"));
        let mut head = [0; 5];
        self.stream.read_exact(&mut head).map_err(failed)?;
        let length = i32::from_be_bytes(head[1..].try_into().expect("4 bytes"));
        let length = usize::try_from(length - 4)
            .ok()
            .filter(|length| *length < MESSAGE_MAX);
        let length = length.ok_or_else(|| Error::new("postgres: a message without a length"))?;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).map_err(failed)?;
        Ok((head[0], body))
    }
}

/// A DataRow: a count, then each value with its length before it; null is the empty text.
fn fields(body: &[u8]) -> Vec<String> {
    let mut rest = body.get(2..).unwrap_or_default();
    let mut fields = Vec::new();
    while let Some((length, after)) = rest.split_at_checked(4) {
        let length = i32::from_be_bytes(length.try_into().expect("4 bytes"));
        let Some((value, after)) = after.split_at_checked(length.max(0) as usize) else {
            break;
        };
        fields.push(String::from_utf8_lossy(value).into_owned());
        rest = after;
    }
    fields
}

/// The message of an error, of its many fields.
fn told(body: &[u8]) -> String {
    let mut fields = body.split(|byte| *byte == 0);
    let message = fields.find(|field| field.first() == Some(&b'M'));
    String::from_utf8_lossy(message.map_or(&[][..], |field| &field[1..])).into_owned()
}
