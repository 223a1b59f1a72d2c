//! The shell: shards on their threads, and everything that they can't do without blocking.
//!
//! | module | what it does |
//! |---|---|
//! | [`host`] | one shard's loop: wait, step, run effects |
//! | [`lives`], [`freeze`], [`upkeep`], [`tiers`] | live databases: read, pause, look after |
//! | [`ahead`] | a landed copy attached before it is served |
//! | [`bells`] | what wakes the shard for a commit to a native log |
//! | [`attaching`] | how many are attached at once |
//! | [`colds`] | databases at rest |
//! | [`copies`], [`journal`] | shadows: fill, follow, land |
//! | [`compare`] | copies that are being filled |
//! | [`links`], [`listen`], [`greet`] | connections to peers |
//! | [`leases`], [`grants`] | what guarded applications write under |
//! | [`discover`] | databases that appear and go |
//! | [`errands`] | the coordinator's words and ours |
//! | [`front`], [`complete`] | questions of people |
//! | [`recover`], [`setup`] | what is found at start |
//! | [`notes`], [`positions`], [`mirrored`] | the switch journal; how far everything has come |
//! | [`outside`] | peers, the switch journal, routes |
//! | [`codecs`] | which codec each link uses |
//! | [`foresee`] | what that thread foresees; its models, and their training |
//! | [`observe`] | the thread that sees accesses, changes and load |
//! | [`meters`] | what is counted |
//! | [`pools`], [`mail`], [`notices`] | helper threads, inboxes, news |
//!
//! A panic in offloaded work fails that one effect. A panic of a shard ends the process: its state
//! may be half-changed, and a start from what is durable is the path that is tested most
//! (docs/decisions/0003).

pub mod ahead;
pub mod attaching;
pub mod bells;
pub mod codecs;
pub mod colds;
pub mod compare;
pub mod complete;
pub mod copies;
pub mod discover;
pub mod errands;
pub mod foresee;
pub mod freeze;
pub mod front;
pub mod grants;
pub mod greet;
pub mod host;
pub mod journal;
pub mod later;
pub mod leases;
pub mod links;
pub mod listen;
pub mod lives;
pub mod mail;
pub mod meters;
pub mod mirrored;
pub mod notes;
pub mod notices;
pub mod observe;
pub mod outside;
pub mod pools;
pub mod positions;
pub mod recover;
pub mod setup;
pub mod tiers;
pub mod upkeep;

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use io::compute::Pool;
use io::journal::Journal as Segments;
use io::probe::Probe;
use io::reactor::{End, Next, Shard as ShardThread, spawn_shard};
use io::urgent::Urgent;
use wal::{NodeId, ShardIndex};

use self::copies::Copies;
use self::host::Host;
use self::journal::Journal;
use self::leases::{Leases, Renewal};
use self::listen::{Door, Guide};
use self::lives::Lives;
use self::mail::{Mail, Mailbox};
use self::notes::Notes;
use self::notices::Noticeboard;
use self::pools::Pools;
use self::positions::PositionsFile;
use self::recover::Recovered;
use self::setup::{Parts, Place, Setup};
use crate::config::Config;
use crate::control::{Order, Seat};
use crate::event::Event;
use crate::shard::{Peer, Settings, Shard};
use crate::{ship, switch};

/// Threads for the syncs of a pause: two, so that one slow disk does not hold up the other end.
const URGENT_THREADS: usize = 2;
/// How long shards may take to end.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Why the daemon can't start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("leases: {0}")]
    Lease(#[from] lease::Error),
    #[error("{what} {path}: {source}")]
    System {
        what: &'static str,
        path: String,
        source: std::io::Error,
    },
    #[error("shard {shard} ended: {reason}")]
    Shard { shard: u16, reason: String },
}

/// Runs the shards until the operator wants the daemon to stop, or a shard failed.
pub fn run(config: Config, seat: Seat) -> Result<(), Error> {
    io::failpoint::listen(&config.node.state_dir.join("steps"));
    let probe = Probe::run()?;
    io::probe::raise_files_max()?;
    for engine in &config.engines {
        io::probe::require_exchange(&engine.dir)?;
    }
    tracing::info!("{probe}");
    wal::log::recent::Recent::clean();
    let Seat {
        questions,
        orders,
        desk,
        owners,
        routes,
        events,
        readiness,
    } = seat;
    let places = open_places(&config)?;
    let (observer, observing) = observe::start(&config)?;
    let parts = Parts {
        leases: Leases::open(&places)?,
        places,
        notes: Notes::open(&config.node.state_dir.join("switch.notes"))?,
        positions: open_positions(&config)?,
        desk,
        routes,
        observer: observer.clone(),
        kernel: describe(&probe),
        config,
    };
    let setup = Arc::new(Setup::new(parts));
    let findings = recover::shadows(&setup)?;
    recover::tell(&setup, &findings);
    let places = discover::first(&setup);
    let post = notices::post_to(events, observer);
    let crew = Crew::start(
        &setup,
        findings.journals,
        findings.copies,
        Noticeboard(post),
    )?;
    crew.help("owners", {
        let (node, shards) = (setup.config.node.id, crew.mailboxes.clone());
        move || tell_owners(&owners, node, &shards)
    })?;
    crew.help("front", {
        let (setup, shards) = (Arc::clone(&setup), crew.mailboxes.clone());
        move || front::run(&setup, &shards, &questions)
    })?;
    let renewal = Renewal::start(&setup, &crew.mailboxes)?;
    let (stop, stopped) = stop_line()?;
    crew.help("discover", {
        let shards = crew.mailboxes.clone();
        move || discover::run(places, &shards, &stopped)
    })?;
    io::failpoint::pass(io::failpoint::Step::RecoverStarted)?;
    readiness.ready();
    let ended = crew.follow(&orders);
    drop(stop);
    // First nobody writes, then nobody reads any more.
    renewal.end();
    crew.finish();
    observing.end();
    ended
}

/// Dropping one end is heard at the other.
fn stop_line() -> Result<(UnixStream, UnixStream), Error> {
    UnixStream::pair().map_err(|source| Error::System {
        what: "make",
        path: "a pair of sockets".to_owned(),
        source,
    })
}

fn open_places(config: &Config) -> Result<Vec<Place>, Error> {
    config
        .engines
        .iter()
        .map(|engine| Ok(Place::open(engine.clone())?))
        .collect()
}

fn open_positions(config: &Config) -> Result<PositionsFile, Error> {
    let path = config.node.state_dir.join("positions");
    PositionsFile::create(&path).map_err(|source| Error::System {
        what: "create",
        path: path.display().to_string(),
        source,
    })
}

fn describe(probe: &Probe) -> serde_json::Map<String, serde_json::Value> {
    let mut kernel = serde_json::Map::new();
    kernel.insert("probe".to_owned(), probe.to_string().into());
    kernel
}

fn tell_owners(
    owners: &flume::Receiver<crate::control::coordinator::OwnerRecord>,
    node: NodeId,
    shards: &[Mailbox],
) {
    while let Ok(record) = owners.recv() {
        let ownership = errands::ownership(&record, node);
        discover::tell(
            shards,
            &record.name,
            Event::Owned {
                name: record.name.clone(),
                ownership,
            },
        );
    }
}

/// The threads of the runtime.
struct Crew {
    shards: Vec<ShardThread>,
    mailboxes: Vec<Mailbox>,
    ended: flume::Receiver<(u16, String)>,
}

impl Crew {
    fn start(
        setup: &Arc<Setup>,
        journals: Vec<Segments>,
        recovered: Vec<Recovered>,
        board: Noticeboard,
    ) -> Result<Crew, Error> {
        let count = setup.config.node.shards;
        let pools = Pools {
            compute: Arc::new(Pool::compute(usize::from(count))),
            disk: Arc::new(Pool::disk()),
            urgent: Arc::new(Urgent::start(URGENT_THREADS)?),
        };
        let (end, ended) = flume::unbounded();
        let mut inboxes = Vec::new();
        for _ in 0..count {
            inboxes.push(flume::unbounded::<Mail>());
        }
        let mut copies = sort(recovered, count);
        let mut crew = Crew {
            shards: Vec::new(),
            mailboxes: Vec::new(),
            ended,
        };
        let mut journals = journals.into_iter();
        let wakes: Vec<_> = (0..count).map(|_| flume::bounded(1)).collect();
        for (index, (sender, inbox)) in inboxes.into_iter().enumerate() {
            let journal = journals.next().expect("one journal for each shard");
            let seeds = Seeds {
                setup: Arc::clone(setup),
                shard: index as u16,
                journal,
                copies: copies.remove(&(index as u16)).unwrap_or_default(),
                pools: pools.clone(),
                board: board.clone(),
                inbox,
                guide: wakes[index].1.clone(),
            };
            let end = end.clone();
            let thread = start_shard(seeds, move |reason| {
                // Nobody follows any more: the daemon is ending already.
                let _ = end.send((index as u16, reason));
            })?;
            crew.mailboxes.push(Mailbox::new(sender, thread.wake()));
            crew.shards.push(thread);
        }
        for (guide, _) in wakes {
            // The shard waits for this before it does anything.
            let _ = guide.send(crew.mailboxes.clone());
        }
        Ok(crew)
    }

    fn help(&self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let spawned = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(work);
        spawned.map(drop).map_err(|source| Error::System {
            what: "start thread",
            path: name.to_owned(),
            source,
        })
    }

    /// Until the operator says stop or a shard ends.
    fn follow(&self, orders: &flume::Receiver<Order>) -> Result<(), Error> {
        loop {
            let order = flume::Selector::new()
                .recv(orders, Ok)
                .recv(&self.ended, Err)
                .wait();
            match order {
                Ok(Ok(Order::Reload(config))) => {
                    let bytes_per_sec_max = config.ship.rate_max.limit().unwrap_or(0);
                    for mailbox in &self.mailboxes {
                        mailbox.post(Mail::Reload { bytes_per_sec_max });
                    }
                }
                Ok(Ok(Order::Drain) | Err(_)) | Err(Err(_)) => return Ok(()),
                Err(Ok((shard, reason))) => return Err(Error::Shard { shard, reason }),
            }
        }
    }

    fn finish(self) {
        for mailbox in &self.mailboxes {
            mailbox.post(Mail::Stop);
        }
        let deadline = std::time::Instant::now() + DRAIN_MAX;
        for _ in &self.shards {
            // A shard that does not end in time is left behind: the process ends with it.
            let _ = self.ended.recv_deadline(deadline);
        }
    }
}

/// What a shard's thread makes its host of.
struct Seeds {
    setup: Arc<Setup>,
    shard: u16,
    journal: Segments,
    copies: Vec<Recovered>,
    pools: Pools,
    board: Noticeboard,
    inbox: flume::Receiver<Mail>,
    guide: flume::Receiver<Vec<Mailbox>>,
}

fn start_shard(
    seeds: Seeds,
    ended: impl Fn(String) + Send + 'static,
) -> Result<ShardThread, Error> {
    let config = &seeds.setup.config;
    let cpu = None;
    let name = format!("shard-{}", seeds.shard);
    let settings = settings(config, seeds.shard);
    let seeds = std::sync::Mutex::new(Some((seeds, settings)));
    let body = move |context| {
        let seeds = seeds
            .lock()
            .unwrap_or_else(|poison| poison.into_inner())
            .take();
        async move {
            let Some((seeds, settings)) = seeds else {
                return Ok(());
            };
            grow(seeds, settings, context).await
        }
    };
    let supervise = move |end: End| {
        ended(match end {
            End::Finished => "it was told to".to_owned(),
            End::Failed(error) => error.to_string(),
            End::Panicked(text) => format!("it panicked: {text}"),
        });
        Next::Stop
    };
    Ok(spawn_shard(&name, cpu, body, supervise)?)
}

/// On the shard's thread: makes the host and runs it.
async fn grow(
    seeds: Seeds,
    settings: Settings,
    context: io::reactor::ShardContext,
) -> io::Result<()> {
    let Seeds {
        setup,
        shard,
        journal,
        copies,
        pools,
        board,
        inbox,
        guide,
    } = seeds;
    let Ok(mailboxes) = guide.recv() else {
        return Ok(());
    };
    let mailbox = mailboxes[usize::from(shard)].clone();
    let door = if shard == 0 {
        let guide = Guide {
            settings: settings.clone(),
            mailboxes,
        };
        Some(Door::open(&setup.config, guide)?)
    } else {
        None
    };
    let mut kept = Copies::new(Journal::new(journal));
    for entry in copies {
        kept.insert(entry.name.id(), entry.name, entry.place, entry.held);
    }
    let lives = Lives::new(&setup);
    let brain = Shard::new(settings);
    let host = Host::new(
        Arc::clone(&setup),
        brain,
        lives,
        kept,
        mailbox,
        pools,
        board,
    )?;
    host::run(context, inbox, host, door).await
}

fn sort(recovered: Vec<Recovered>, shards: u16) -> BTreeMap<u16, Vec<Recovered>> {
    let mut sorted: BTreeMap<u16, Vec<Recovered>> = BTreeMap::new();
    for entry in recovered {
        let ShardIndex(shard) = ShardIndex::of(entry.name.id(), shards);
        sorted.entry(shard).or_default().push(entry);
    }
    sorted
}

/// What the brain of one shard has to know.
fn settings(config: &Config, shard: u16) -> Settings {
    let shards = config.node.shards;
    let peers = config.peers.iter().map(|peer| {
        let lanes = least_common_multiple(shards, peer.shards.unwrap_or(shards));
        let description = Peer {
            name: peer.name.to_string(),
            address: peer.address.to_string(),
            lanes,
        };
        (peer.id, description)
    });
    Settings {
        node: config.node.id,
        name: config.node.name.to_string(),
        cluster: config.node.cluster.to_string(),
        shard,
        shards,
        peers: peers.collect(),
        ship: ship::Settings {
            window: config.ship.window.0,
            copies: config.ship.copies,
            reconnect_min: config.ship.reconnect_min,
            reconnect_max: config.ship.reconnect_max,
        },
        switch: switch::Settings {
            pause_max: config.switch.pause_max,
            pause_timeout: config.switch.pause_timeout,
            keep_reverse: config.switch.keep_reverse_shadow,
        },
    }
}

fn least_common_multiple(one: u16, two: u16) -> u16 {
    let divisor = |mut a: u16, mut b: u16| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    (u32::from(one) * u32::from(two) / u32::from(divisor(one, two).max(1))) as u16
}
