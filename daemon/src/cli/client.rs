//! The command line's end of the Unix socket: one request, one answer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::serve::problem::Problem;
use crate::serve::reply::EventReply;

/// Longer than the daemon's own patience for its slowest answer.
const ANSWER_WAIT: Duration = Duration::from_secs(660);

/// Asks one daemon.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// What the daemon said, if it said yes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    pub status: u16,
    /// The reply as it came.
    pub text: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(
        "no daemon answers on {}: {source}; is it running (systemctl status foreshadow), and is \
         --socket right?", .socket.display()
    )]
    Unreachable {
        socket: PathBuf,
        source: std::io::Error,
    },
    #[error("{0}")]
    Refused(Problem),
    #[error("the answer of {} can't be read: {reason}", .socket.display())]
    Garbled { socket: PathBuf, reason: String },
}

impl Answer {
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_str(&self.text).map_err(|error| Failure::Garbled {
            socket: PathBuf::from("the daemon"),
            reason: format!("{error}; it may be of another version"),
        })
    }
}

impl Client {
    pub fn new(socket: &Path) -> Client {
        Client {
            socket: socket.to_owned(),
        }
    }

    pub async fn get(&self, target: &str) -> Result<Answer, Failure> {
        self.send("GET", target, String::new()).await
    }

    /// Sends one request on a connection of its own.
    pub async fn send(&self, method: &str, target: &str, body: String) -> Result<Answer, Failure> {
        let answer = async {
            let response = self.request(method, target, body).await?;
            let status = response.status().as_u16();
            let body = response
                .into_body()
                .collect()
                .await
                .map_err(|e| self.garbled(&e))?;
            let text = String::from_utf8(body.to_bytes().to_vec());
            let text = text.map_err(|error| self.garbled(&error))?;
            if status < 300 {
                Ok(Answer { status, text })
            } else {
                Err(self.refusal(&text))
            }
        };
        match tokio::time::timeout(ANSWER_WAIT, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(self.unreachable(std::io::ErrorKind::TimedOut.into())),
        }
    }

    /// Listens to server-sent events until `take` says no or the daemon ends the stream.
    pub async fn events(
        &self,
        target: &str,
        mut take: impl FnMut(&EventReply) -> bool,
    ) -> Result<(), Failure> {
        let response = self.request("GET", target, String::new()).await?;
        let refused = !response.status().is_success();
        let mut body = response.into_body();
        let mut unread = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.garbled(&error))?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            unread.extend_from_slice(&data);
            while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = unread.drain(..=end).collect();
                let Some(json) = line.strip_prefix(b"data: ") else {
                    continue;
                };
                let event = serde_json::from_slice(json).map_err(|error| self.garbled(&error))?;
                if !take(&event) {
                    return Ok(());
                }
            }
        }
        if refused {
            return Err(self.refusal(&String::from_utf8_lossy(&unread)));
        }
        Ok(())
    }

    async fn request(
        &self,
        method: &str,
        target: &str,
        body: String,
    ) -> Result<Response<Incoming>, Failure> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|e| self.unreachable(e))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.garbled(&error))?;
        // What goes wrong on the connection is told by the request as well.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", "foreshadow")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| self.garbled(&error))?;
        sender
            .send_request(request)
            .await
            .map_err(|error| self.garbled(&error))
    }

    fn unreachable(&self, source: std::io::Error) -> Failure {
        Failure::Unreachable {
            socket: self.socket.clone(),
            source,
        }
    }

    fn refusal(&self, text: &str) -> Failure {
        match serde_json::from_str(text) {
            Ok(problem) => Failure::Refused(problem),
            Err(error) => self.garbled(&error),
        }
    }

    fn garbled(&self, error: &dyn std::error::Error) -> Failure {
        Failure::Garbled {
            socket: self.socket.clone(),
            reason: error.to_string(),
        }
    }
}
