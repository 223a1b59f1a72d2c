//! The control thread: everything that talks to people and to the rest of the system.
//!
//! | module | what it does |
//! |---|---|
//! | [`coordinator`] | the trait: who owns what |
//! | [`embedded`] | the coordinator of one machine, a file |
//! | [`desk`] | the thread that makes the coordinator's blocking calls |
//! | [`gateway`] | questions to the shards and answers back |
//! | [`http`] | the Unix socket, and the probes on TCP |
//! | [`access`], [`socket`] | who may use the socket; taking it safely |
//! | [`events`] | what happened, for listeners |
//! | [`routing`] | symlinks to live databases |
//! | [`metrics`] | every metric, once |
//! | [`notify`] | what systemd is told |
//! | [`instance`] | one daemon per state directory |
//! | [`signals`] | SIGTERM, SIGINT, SIGHUP |
//!
//! [`start`] gives two ends: a [`Control`] for `main`, and a [`Seat`] for the runtime, which is all
//! that the shards know of this module.

pub mod access;
pub mod coordinator;
pub mod desk;
pub mod embedded;
pub mod events;
pub mod gateway;
pub mod http;
pub mod instance;
pub mod metrics;
pub mod notify;
mod owner_log;
pub mod routing;
pub mod signals;
pub mod socket;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::oneshot;

use self::access::Access;
use self::coordinator::{Coordinator, OwnerRecord};
use self::desk::Desk;
use self::embedded::Embedded;
use self::events::Events;
use self::gateway::{Gateway, Question};
use self::instance::Instance;
use self::metrics::Meter;
use self::routing::{Publisher, Routes};
use self::signals::Watch;
use self::socket::Socket;
use crate::config::{Config, CoordinatorConfig};
use crate::serve::query::Query;
use crate::serve::reply::{InfoReply, Reply};

/// What the runtime is given: its only way to the control thread.
#[derive(Debug)]
pub struct Seat {
    /// Questions of the socket; each must be answered.
    pub questions: flume::Receiver<Question>,
    /// What the operator wants of the whole daemon.
    pub orders: flume::Receiver<Order>,
    /// The coordinator.
    pub desk: Desk,
    /// Records of the coordinator as they change; every one once at start.
    pub owners: flume::Receiver<OwnerRecord>,
    pub routes: Routes,
    pub events: Events,
    pub readiness: Readiness,
}

/// What the operator wants of the whole daemon.
#[derive(Debug)]
pub enum Order {
    /// Take over what can change without a restart (see [`Config::restart_needed`]).
    Reload(Box<Config>),
    /// Finish what is under way, within a few seconds, and return.
    Drain,
}

/// To be used once, when the daemon serves.
#[derive(Debug)]
pub struct Readiness(oneshot::Sender<()>);

impl Readiness {
    /// Tells the service manager that the daemon serves.
    pub fn ready(self) {
        // The control thread is gone: the daemon is being stopped while it starts.
        let _ = self.0.send(());
    }
}

/// What `main` keeps: the running control thread.
#[derive(Debug)]
pub struct Control {
    thread: JoinHandle<()>,
    stop: oneshot::Sender<()>,
    _instance: Instance,
}

/// Why the control thread can't start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Instance(#[from] instance::Error),
    #[error(transparent)]
    Socket(#[from] socket::Error),
    #[error(transparent)]
    Coordinator(#[from] coordinator::Error),
    #[error("serve.http: can't listen on {address}: {source}; is another program using the port?")]
    Probes {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("the control thread can't start: {0}")]
    Thread(std::io::Error),
}

/// Changes the level of the log while it is written.
pub type SetLevel = Box<dyn Fn(&str) -> Result<(), String> + Send>;

/// Takes the state directory, the socket and the coordinator, and starts to answer.
pub fn start(config: &Config, set_level: SetLevel) -> Result<(Control, Seat), Error> {
    let instance = Instance::take(&config.node.state_dir)?;
    let access = Access::new(config.serve.group.as_deref());
    let socket = Socket::bind(&config.node.socket, access)?;
    let probes = config.serve.http.map(listen).transpose()?;
    let (desk, owners, _) = Desk::start(coordinator(config)?).map_err(Error::Thread)?;
    let (routes, publisher) = Routes::new(config.routing.dir.as_deref());
    let (gateway, questions) = Gateway::pair();
    let events = Events::default();
    let (order, orders) = flume::bounded(signals::ORDERS_MAX);
    let (ready, is_ready) = oneshot::channel();
    let (stop, stopped) = oneshot::channel();
    let answers = Arc::new(http::Answers {
        gateway: gateway.clone(),
        events: events.clone(),
        meter: Meter::install(config.node.name.as_str()),
        info: info(config),
    });
    let watch = Watch {
        config: config.clone(),
        order,
        set_level,
    };
    let duties = Duties {
        answers,
        socket,
        access,
        probes,
        publisher,
        watch,
        is_ready,
        stopped,
    };
    let thread = std::thread::Builder::new().name("control".to_owned());
    let thread = thread.spawn(move || run(duties)).map_err(Error::Thread)?;
    let readiness = Readiness(ready);
    let seat = Seat {
        questions,
        orders,
        desk,
        owners,
        routes,
        events,
        readiness,
    };
    Ok((
        Control {
            thread,
            stop,
            _instance: instance,
        },
        seat,
    ))
}

impl Control {
    /// Ends the control thread: the socket is gone when this returns.
    pub fn stop(self) {
        // The thread may have ended by itself, which is what is wanted.
        let _ = self.stop.send(());
        if self.thread.join().is_err() {
            tracing::error!("the control thread panicked");
        }
    }
}

fn listen(address: SocketAddr) -> Result<std::net::TcpListener, Error> {
    let listener = std::net::TcpListener::bind(address);
    let listener = listener.and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|source| Error::Probes { address, source })
}

fn coordinator(config: &Config) -> Result<Box<dyn Coordinator>, Error> {
    match &config.coordinator {
        CoordinatorConfig::Embedded { dir } => Ok(Box::new(Embedded::open(dir)?)),
    }
}

fn info(config: &Config) -> InfoReply {
    InfoReply {
        node: config.node.name.to_string(),
        id: config.node.id.to_string(),
        cluster: config.node.cluster.to_string(),
        version: http::version().version,
        config: std::path::absolute(&config.path)
            .unwrap_or_else(|_| config.path.clone())
            .display()
            .to_string(),
        listen: config.node.listen.to_string(),
        routes: http::routes(),
    }
}

/// What the control thread does until it is stopped.
struct Duties {
    answers: Arc<http::Answers>,
    socket: Socket,
    access: Access,
    probes: Option<std::net::TcpListener>,
    publisher: Option<Publisher>,
    watch: Watch,
    is_ready: oneshot::Receiver<()>,
    stopped: oneshot::Receiver<()>,
}

fn run(mut duties: Duties) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime needs an epoll descriptor and an eventfd");
    let listener = duties.socket.listener();
    runtime.block_on(async move {
        let gateway = duties.answers.gateway.clone();
        let listener = UnixListener::from_std(listener).expect("non-blocking");
        tokio::spawn(http::serve_socket(
            duties.answers.clone(),
            listener,
            duties.access,
        ));
        if let Some(probes) = duties.probes {
            let listener = TcpListener::from_std(probes).expect("non-blocking");
            tokio::spawn(http::serve_probes(duties.answers.clone(), listener));
        }
        if let Some(publisher) = duties.publisher {
            tokio::spawn(publisher.run());
        }
        tokio::spawn(duties.watch.run());
        tokio::spawn(announce(
            gateway,
            duties.answers.meter.clone(),
            duties.is_ready,
        ));
        // An error means that `main` is gone, and so is this thread.
        let _ = duties.stopped.await;
    });
    drop(duties.socket);
}

/// Tells the service manager that the daemon is ready, and from then on how it goes.
async fn announce(gateway: Gateway, meter: Meter, is_ready: oneshot::Receiver<()>) {
    if is_ready.await.is_err() {
        return;
    }
    notify::ready();
    let every = notify::watchdog_every().unwrap_or(notify::STATUS_EVERY);
    let mut ticks = tokio::time::interval(every.min(notify::STATUS_EVERY));
    loop {
        ticks.tick().await;
        meter.upkeep();
        match gateway.ask(Query::Status).await {
            Ok(Reply::Status(status)) => {
                notify::alive();
                notify::status(&format!(
                    "{} partitions, {} owned, {} shadowed, {} bytes of lag at most",
                    status.partitions, status.owned, status.shadowed, status.lag_bytes_max
                ));
            }
            Ok(_) => tracing::error!("the shards answer a status with something else"),
            Err(problem) => tracing::warn!(%problem, "the shards do not tell their status"),
        }
    }
}
