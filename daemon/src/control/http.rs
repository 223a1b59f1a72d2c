//! HTTP/1.1 on the Unix socket, and the probes of load balancers on TCP.
//!
//! A request becomes a query (`serve::http`), the query goes to the shards, the reply comes back as
//! JSON. Nothing is decided here. Limits: connections, body, time for a request's head.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::channel::{Channel, Sender};
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, broadcast};

use super::access::{Access, Visitor};
use super::events::Events;
use super::gateway::Gateway;
use super::metrics::Meter;
use crate::serve::http::{ROUTES, body_len_max};
use crate::serve::probe::Probe;
use crate::serve::problem::{self, Problem, ProblemKind};
use crate::serve::query::{EventId, Query};
use crate::serve::reply::{EventReply, InfoReply, Reply, VersionReply};

/// Connections on the socket at once, at most.
const CONNECTIONS_MAX: usize = 256;
/// Probes at once, at most: they must not crowd out one another.
const PROBES_MAX: usize = 64;
/// A client that can't send its request within this is let go.
const HEAD_WAIT: Duration = Duration::from_secs(10);
/// A comment on an idle event stream, so that a client that left is noticed.
const EVENT_COMMENT_EVERY: Duration = Duration::from_secs(15);

type Body = Either<Full<Bytes>, Channel<Bytes>>;

/// What answers are made of.
#[derive(Clone, Debug)]
pub struct Answers {
    pub gateway: Gateway,
    pub events: Events,
    pub meter: Meter,
    pub info: InfoReply,
}

/// Serves the socket until the task is dropped.
pub async fn serve_socket(answers: Arc<Answers>, listener: UnixListener, access: Access) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = room.clone().acquire_owned().await.expect("never closed");
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                refuse_accept(&error).await;
                continue;
            }
        };
        let visitor = stream
            .peer_cred()
            .map(|credentials| Visitor::of(&credentials));
        let allowed = visitor.as_ref().is_ok_and(|visitor| access.allows(visitor));
        if !allowed {
            tracing::warn!(?visitor, "a connection to the socket was refused");
        }
        let answers = answers.clone();
        tokio::spawn(async move {
            serve(stream, |request| answer_socket(&answers, allowed, request)).await;
            drop(place);
        });
    }
}

/// Serves probes until the task is dropped.
pub async fn serve_probes(answers: Arc<Answers>, listener: TcpListener) {
    let room = Arc::new(Semaphore::new(PROBES_MAX));
    loop {
        let place = room.clone().acquire_owned().await.expect("never closed");
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                refuse_accept(&error).await;
                continue;
            }
        };
        let answers = answers.clone();
        tokio::spawn(async move {
            serve(stream, |request| answer_probe(&answers, request)).await;
            drop(place);
        });
    }
}

/// accept(2) fails when descriptors run out: wait for some to be closed.
async fn refuse_accept(error: &std::io::Error) {
    tracing::warn!(%error, "a connection could not be accepted");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn serve<S, F>(stream: S, answer: impl Fn(Request<Incoming>) -> F)
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = Response<Body>>,
{
    let service = service_fn(|request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn answer_socket(
    answers: &Answers,
    allowed: bool,
    request: Request<Incoming>,
) -> Response<Body> {
    if !allowed {
        let detail = "the socket is for root, the daemon's user and the group of serve.group";
        return problem_response(&Problem::new(ProblemKind::Forbidden, detail));
    }
    match read(request).await {
        Ok(Query::Metrics) => text_response(answers.meter.render()),
        Ok(Query::Events {
            after,
            follow: true,
        }) => event_stream(&answers.events, after),
        Ok(query) => match answer(answers, query).await {
            Ok(reply) => json_response(reply.status(), "application/json", &reply),
            Err(problem) => problem_response(&problem),
        },
        Err(problem) => problem_response(&problem),
    }
}

/// The query that a request asks.
async fn read(request: Request<Incoming>) -> Result<Query, Problem> {
    let (head, body) = request.into_parts();
    let target = head
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str())
        .to_owned();
    let len_max = body_len_max(&target);
    let body = Limited::new(body, len_max)
        .collect()
        .await
        .map_err(|error| {
            let detail = format!("the body can't be read ({error}); at most {len_max} bytes");
            Problem::new(ProblemKind::TooLarge, detail)
        })?;
    let mut query = crate::serve::http::read(head.method.as_str(), &target, &body.to_bytes())?;
    if let Query::Events {
        after: after @ None,
        ..
    } = &mut query
    {
        // A browser that reconnects names the last event that it saw (HTML, server-sent events).
        let last = head
            .headers
            .get("last-event-id")
            .and_then(|id| id.to_str().ok());
        *after = last.and_then(|id| id.parse().ok()).map(EventId);
    }
    Ok(query)
}

async fn answer(answers: &Answers, query: Query) -> Result<Reply, Problem> {
    match query {
        Query::Version => Ok(Reply::Version(version())),
        Query::Info => Ok(Reply::Info(answers.info.clone())),
        Query::Events { after, .. } => Ok(Reply::Events(answers.events.recent(after))),
        query => answers.gateway.ask(query).await,
    }
}

/// The program's version.
pub fn version() -> VersionReply {
    let target = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
    VersionReply {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        target,
    }
}

/// The routes, for `GET /v1/info`.
pub fn routes() -> Vec<String> {
    ROUTES
        .iter()
        .map(|route| format!("{} {}", route.method, route.path))
        .collect()
}

async fn answer_probe(answers: &Answers, request: Request<Incoming>) -> Response<Body> {
    let target = request
        .uri()
        .path_and_query()
        .map_or("/", |target| target.as_str());
    let answer = match Probe::read(request.method().as_str(), target) {
        Ok(Probe::Metrics) => Ok(answers.meter.render()),
        Ok(probe) => {
            let reply = answers.gateway.ask(probe.query()).await;
            probe.judge(reply)
        }
        Err(problem) => Err(problem),
    };
    match answer {
        Ok(text) => text_response(text),
        Err(problem) => problem_response(&problem),
    }
}

fn json_response(status: u16, media_type: &'static str, value: &impl Serialize) -> Response<Body> {
    let mut text = serde_json::to_vec(value).expect("replies have text keys only");
    text.push(b'\n');
    response(status, media_type, Either::Left(Full::new(text.into())))
}

fn problem_response(problem: &Problem) -> Response<Body> {
    let mut response = json_response(problem.status(), problem::MEDIA_TYPE, problem);
    let headers = response.headers_mut();
    match problem.status() {
        429 | 503 => drop(headers.insert(RETRY_AFTER, HeaderValue::from_static("1"))),
        // RFC 9110 15.5.6: a 405 names the methods that are allowed.
        405 => drop(headers.insert(ALLOW, HeaderValue::from_static("GET, POST, DELETE"))),
        _ => {}
    }
    response
}

fn text_response(text: String) -> Response<Body> {
    response(
        200,
        "text/plain; version=0.0.4",
        Either::Left(Full::new(text.into())),
    )
}

fn response(status: u16, media_type: &'static str, body: Body) -> Response<Body> {
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, media_type)
        .header(CACHE_CONTROL, "no-store")
        .body(body)
        .expect("every status and header here is valid")
}

/// Server-sent events: those missed, then those to come.
fn event_stream(events: &Events, after: Option<EventId>) -> Response<Body> {
    let (missed, coming) = events.follow(after);
    let (sender, channel) = Channel::new(16);
    tokio::spawn(stream_events(missed, coming, sender));
    response(200, "text/event-stream", Either::Right(channel))
}

async fn stream_events(
    missed: Vec<EventReply>,
    mut coming: broadcast::Receiver<EventReply>,
    mut sender: Sender<Bytes>,
) {
    let mut text: String = missed.iter().map(event_text).collect();
    if text.is_empty() {
        text.push_str(":\n\n");
    }
    // Sending fails when the listener has left, which ends the stream.
    while sender.send_data(text.into()).await.is_ok() {
        text = match tokio::time::timeout(EVENT_COMMENT_EVERY, coming.recv()).await {
            Ok(Ok(event)) => event_text(&event),
            Ok(Err(broadcast::error::RecvError::Lagged(missed))) => {
                format!(": {missed} events were missed\n\n")
            }
            Ok(Err(broadcast::error::RecvError::Closed)) => return,
            Err(_) => ":\n\n".to_owned(),
        };
    }
}

fn event_text(event: &EventReply) -> String {
    let data = serde_json::to_string(event).expect("events have text keys only");
    format!(
        "id: {}\nevent: {}\ndata: {data}\n\n",
        event.id.0, event.kind
    )
}

#[cfg(test)]
mod tests;
