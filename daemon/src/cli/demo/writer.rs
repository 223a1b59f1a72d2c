//! Writers of the demo: ordinary applications that know nothing of the daemon. Each opens its
//! route, enters (writer, seq) into its tenant's ledger, and appends to its ack journal once that
//! is committed.
//!
//! Whatever fails is retried with the same seq, after a while or after opening the route again, as
//! the engine says. A retry first asks whether the entry is there, because a commit that returned
//! an error may still have happened.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::acks::{ACK_LEN, Ack};
use super::clock::now_ns;
use super::harness::Error;
use super::plan::{OneWriter, Pace, Tally, WriterPlan};
use super::random::Random;

/// A write that has not succeeded so long after the end was asked for is given up.
const GIVE_UP: Duration = Duration::from_secs(10);

/// What one writer writes into: its tenant, found by the route.
pub trait Book: Send {
    /// Enters a row and returns once it is committed. If the row is `doubtful`, it is looked for
    /// first; true if it was there.
    fn enter(&mut self, row: &Row, doubtful: bool) -> Result<bool, Refusal>;

    /// Lets go of what is open: the next entry follows the route again.
    fn let_go(&mut self);
}

/// A row of a ledger.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    pub writer: u32,
    pub seq: u64,
    /// How often the writer had opened its route again by then.
    pub generation: u64,
    pub account: u64,
    pub amount: i64,
}

/// Why an entry was not made, or was not said to be made.
#[derive(Debug)]
pub struct Refusal {
    /// As the tally counts it.
    pub name: String,
    pub remedy: Remedy,
}

/// What an application does about an error before it tries again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Remedy {
    /// It waits so long and tries again with what it has open.
    Wait(Duration),
    /// It opens its route again.
    Reopen,
    /// It does the same, about an error that no fence and no move gives.
    Wonder,
}

/// Runs all writers of the plan until standard input ends, then leaves the tally.
pub fn run(plan: &WriterPlan) -> Result<(), Error> {
    let total = run_while(plan, wait_for_end_of_input)?;
    let json = serde_json::to_vec(&total).map_err(|error| Error::new(error.to_string()))?;
    fs::write(&plan.tally, json).map_err(|error| Error::at("write", &plan.tally, error))
}

/// Runs all writers of the plan for as long as `rest` takes.
pub fn run_while(plan: &WriterPlan, rest: impl FnOnce()) -> Result<Tally, Error> {
    let stop = Stop::default();
    let mut writers = Vec::new();
    for (own, book) in plan.writers.iter().zip(plan.engine.books(plan)) {
        writers.push(Writer::open(plan, own, book)?);
    }
    let total = thread::scope(|scope| {
        let threads: Vec<_> = writers
            .into_iter()
            .map(|writer| scope.spawn(|| writer.run(&stop)))
            .collect();
        // Also asked when `rest` panics, else the scope would wait for the writers for ever.
        let asked = AskWhenDropped(&stop);
        rest();
        drop(asked);
        let tallies = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| died()));
        tallies.fold(Tally::default(), add)
    });
    Ok(Tally {
        version: plan.engine.version(),
        ..total
    })
}

fn wait_for_end_of_input() {
    let mut byte = [0];
    // An error means as much as the end: whoever held the other side is gone.
    while matches!(std::io::stdin().read(&mut byte), Ok(n) if n > 0) {}
}

/// A writer that panicked has at least not finished its work.
fn died() -> Tally {
    Tally {
        stuck: 1,
        ..Tally::default()
    }
}

fn add(mut sum: Tally, one: Tally) -> Tally {
    sum.reopened += one.reopened;
    sum.busy += one.busy;
    sum.doubtful += one.doubtful;
    sum.strange += one.strange;
    sum.stuck += one.stuck;
    for (error, count) in one.errors {
        *sum.errors.entry(error).or_default() += count;
    }
    sum
}

struct Writer<'a> {
    own: &'a OneWriter,
    journal: File,
    book: Box<dyn Book>,
    random: Random,
    tally: Tally,
    seq: u64,
    /// The row of the current seq may be there already.
    doubtful: bool,
}

impl<'a> Writer<'a> {
    fn open(
        plan: &WriterPlan,
        own: &'a OneWriter,
        book: Box<dyn Book>,
    ) -> Result<Writer<'a>, Error> {
        let path = plan.acks.join(format!("{}.ack", own.writer));
        let seen = super::acks::read(&path)?;
        let resumed = path.exists();
        let journal = OpenOptions::new().create(true).append(true).open(&path);
        let journal = journal.map_err(|error| Error::at("open", &path, error))?;
        // A record torn by a kill would shift all later ones.
        let whole = journal.set_len((seen.len() * ACK_LEN) as u64);
        whole.map_err(|error| Error::at("cut", &path, error))?;
        Ok(Writer {
            own,
            journal,
            book,
            random: Random::new(plan.seed).fork(u64::from(own.writer)),
            tally: Tally::default(),
            seq: seen.last().map_or(1, |ack| ack.seq + 1),
            doubtful: resumed,
        })
    }

    fn run(mut self, stop: &Stop) -> Tally {
        let mut due_ns = now_ns();
        loop {
            let begin_ns = match self.own.pace {
                Pace::Rate(rate) => {
                    due_ns += (self.random.wait(rate) * 1e9) as u64;
                    due_ns
                }
                Pace::ThinkUs(think) => due_ns + think * 1000,
            };
            stop.sleep_until(begin_ns);
            if stop.is_asked() {
                return self.tally;
            }
            let start_ns = now_ns();
            if !self.write(start_ns, stop) {
                self.tally.stuck += 1;
                return self.tally;
            }
            let end_ns = now_ns();
            self.acknowledge(due_ns, start_ns, end_ns);
            if let Pace::ThinkUs(_) = self.own.pace {
                due_ns = end_ns;
            }
        }
    }

    /// Tries until the row of this seq is committed; false if given up.
    fn write(&mut self, start_ns: u64, stop: &Stop) -> bool {
        loop {
            let row = self.row();
            match self.book.enter(&row, self.doubtful) {
                Ok(found) => {
                    self.tally.doubtful += u64::from(found);
                    return true;
                }
                Err(refusal) => self.after(refusal),
            }
            self.doubtful = true;
            let spent = Duration::from_nanos(now_ns() - start_ns);
            if stop.is_asked() && spent > GIVE_UP {
                return false;
            }
        }
    }

    fn row(&mut self) -> Row {
        Row {
            writer: self.own.writer,
            seq: self.seq,
            generation: self.tally.reopened,
            account: self.random.below(self.own.accounts) + 1,
            amount: self.random.below(2001) as i64 - 1000,
        }
    }

    fn after(&mut self, refusal: Refusal) {
        if let Remedy::Wait(time) = refusal.remedy {
            self.tally.busy += 1;
            thread::sleep(time);
            return;
        }
        self.tally.strange += u64::from(refusal.remedy == Remedy::Wonder);
        *self.tally.errors.entry(refusal.name).or_default() += 1;
        self.tally.reopened += 1;
        self.book.let_go();
        thread::sleep(Duration::from_micros(200 + self.random.below(800)));
    }

    fn acknowledge(&mut self, due_ns: u64, start_ns: u64, end_ns: u64) {
        let (writer, tenant) = (self.own.writer, self.own.tenant);
        let ack = Ack {
            writer,
            tenant,
            seq: self.seq,
            due_ns,
            start_ns,
            end_ns,
        };
        let written = self.journal.write_all(&ack.encode());
        written.expect("without its ack journal a writer proves nothing");
        self.seq += 1;
        self.doubtful = false;
    }
}

/// A request to end, which also wakes those who sleep until their next arrival.
#[derive(Default)]
struct Stop {
    asked: Mutex<bool>,
    bell: Condvar,
}

struct AskWhenDropped<'a>(&'a Stop);

impl Drop for AskWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.ask();
    }
}

impl Stop {
    fn ask(&self) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.bell.notify_all();
    }

    fn is_asked(&self) -> bool {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sleep_until(&self, at_ns: u64) {
        let left = || Duration::from_nanos(at_ns.saturating_sub(now_ns()));
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        while !*asked && !left().is_zero() {
            let woken = self.bell.wait_timeout(asked, left());
            asked = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
