//! The server on a real socket, asked by the command line's own client.

use std::path::Path;

use super::*;
use crate::cli::client::{Client, Failure};
use crate::control::gateway::Question;
use crate::control::socket::Socket;
use crate::serve::http::BODY_LEN_MAX;
use crate::serve::reply::StatusReply;

/// A daemon's socket without a daemon; the shards answer as told.
fn with_server<F: Future>(
    answer: fn(Question),
    ask: impl FnOnce(Client, Events) -> F,
) -> F::Output {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("socket");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        let (gateway, asked) = Gateway::pair();
        std::thread::spawn(move || asked.iter().for_each(answer));
        let events = Events::default();
        let meter = Meter::install("node-a");
        let answers = Answers {
            gateway,
            events: events.clone(),
            meter,
            info: info(),
        };
        let access = Access::new(None);
        let mut socket = Socket::bind(&path, access).expect("free");
        let listener = UnixListener::from_std(socket.listener()).expect("non-blocking");
        let server = tokio::spawn(serve_socket(Arc::new(answers), listener, access));
        let output = ask(Client::new(&path), events).await;
        server.abort();
        output
    })
}

fn info() -> InfoReply {
    InfoReply {
        node: "node-a".into(),
        id: "0".into(),
        cluster: "test".into(),
        version: version().version,
        config: "/etc/foreshadow/foreshadow.toml".into(),
        listen: "127.0.0.1:1".into(),
        routes: routes(),
    }
}

fn ready(question: Question) {
    let status = StatusReply {
        ready: true,
        owned: 3,
        ..StatusReply::default()
    };
    question.answer.give(Ok(Reply::Status(Box::new(status))));
}

fn refusal(answer: fn(Question), method: &'static str, target: &str, body: String) -> Problem {
    let target = target.to_owned();
    let failure = with_server(answer, |client, _| async move {
        client
            .send(method, &target, body)
            .await
            .expect_err("refused")
    });
    let Failure::Refused(problem) = failure else {
        panic!("{failure}")
    };
    problem
}

#[test]
fn a_question_on_the_socket_is_answered_by_the_shards() {
    let status: StatusReply = with_server(ready, |client, _| async move {
        client
            .get("/v1/status")
            .await
            .expect("answers")
            .read()
            .expect("a status")
    });
    assert_eq!((status.ready, status.owned), (true, 3));
}

#[test]
fn what_the_control_thread_knows_needs_no_shard() {
    let info: InfoReply = with_server(drop, |client, _| async move {
        client
            .get("/v1/info")
            .await
            .expect("answers")
            .read()
            .expect("an info")
    });
    assert!(info.routes.contains(&"POST /v1/moves".to_owned()));
}

#[test]
fn problems_arrive_as_problems() {
    assert_eq!(
        refusal(ready, "GET", "/v1/nope", String::new()).status(),
        404
    );
    assert_eq!(
        refusal(ready, "PUT", "/v1/moves", String::new()).status(),
        405
    );
    assert_eq!(
        refusal(drop, "GET", "/v1/peers", String::new()).status(),
        500
    );
}

#[test]
fn a_body_that_is_too_large_is_refused() {
    let problem = refusal(
        ready,
        "POST",
        "/v1/partitions",
        "x".repeat(BODY_LEN_MAX + 1),
    );
    assert_eq!(problem.status(), 413);
}

#[test]
fn events_are_streamed_as_they_happen() {
    let heard = with_server(ready, |client, events| async move {
        events.publish("attached", Some("a.db"), "before");
        let mut heard = Vec::new();
        let listening = client.events("/v1/events?after=0", |event| {
            heard.push(event.text.clone());
            heard.len() < 2
        });
        let telling = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            events.publish("done", None, "after");
        };
        let (listened, ()) = tokio::join!(listening, telling);
        listened.expect("a stream");
        heard
    });
    assert_eq!(heard, ["before", "after"]);
}

#[test]
fn metrics_are_text() {
    let text = with_server(ready, |client, _| async move {
        client.get("/metrics").await.expect("answers").text
    });
    assert!(text.contains("foreshadow_build_info{"), "{text}");
}

#[test]
fn a_daemon_that_is_not_there_is_told_as_such() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let failure = runtime.expect("a runtime").block_on(async {
        Client::new(Path::new("/nonexistent/socket"))
            .get("/v1/status")
            .await
            .expect_err("nobody")
    });
    let text = failure.to_string();
    assert!(
        text.starts_with("no daemon answers on /nonexistent/socket: "),
        "{text}"
    );
}
