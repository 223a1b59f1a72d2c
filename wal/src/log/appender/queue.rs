//! The queue of an appender: the group that is open, those that wait for a leader, those in flight.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{Appender, keeper};
use crate::log::control::Word;
use crate::log::error::{Error, Result};
use crate::log::group::{self, Builder, Bytes, Kind};
use crate::log::saved::Run;
use crate::log::segment::Layout;
use crate::lsn::{Epoch, Lsn};

/// A group takes records until it is as long as this, unless one batch alone is longer.
const GROUP_BYTES: usize = 1 << 20;
/// Buffers longer than this are not kept.
const KEPT_BYTES: usize = 4 << 20;

/// What everybody who appends looks at, behind a lock.
#[derive(Debug)]
pub struct Queue {
    /// As it was left by our last commit.
    word: Word,
    epoch: Epoch,
    run: u32,
    /// Where the last group that was closed ends.
    tail: Lsn,
    open: Option<Waiting>,
    ready: VecDeque<Waiting>,
    flights: VecDeque<Flight>,
    in_flight: u32,
    in_flight_max: u32,
    /// Nothing can be appended while, or since, this is so.
    failure: Option<Error>,
    buffers: Vec<Bytes>,
}

/// A group that nobody writes yet.
#[derive(Debug)]
struct Waiting {
    builder: Builder,
    after: Lsn,
    /// It may become as long as this.
    room: usize,
    ticket: Arc<Ticket>,
}

/// A group that somebody writes.
#[derive(Debug)]
struct Flight {
    lsn: Lsn,
    end: Lsn,
    written: bool,
    ticket: Arc<Ticket>,
}

/// What those who have records in one group wait for.
#[derive(Debug, Default)]
struct Ticket {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Waiting,
    /// One of those who wait shall write the oldest group.
    Lead,
    /// Where the group ends.
    Done(Result<Lsn>),
}

/// What a ticket's holders are told, once the lock is let go.
type News = Vec<(Arc<Ticket>, Result<Lsn>)>;

impl Ticket {
    fn set(&self, state: State) {
        let mut place = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*place, State::Done(_)) {
            return;
        }
        let all = matches!(state, State::Done(_));
        *place = state;
        drop(place);
        match all {
            true => self.changed.notify_all(),
            false => self.changed.notify_one(),
        }
    }

    /// The result; `None` when the caller is asked to lead.
    fn wait(&self) -> Option<Result<Lsn>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match &*state {
                State::Done(result) => return Some(result.clone()),
                State::Lead => {
                    *state = State::Waiting;
                    return None;
                }
                State::Waiting => {
                    let waited = self.changed.wait(state);
                    state = waited.unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

impl Queue {
    pub fn new(word: Word, run: &Run, in_flight_max: u32) -> Queue {
        Queue {
            // Frozen or not: our first commit waits for that.
            word: Word {
                frozen: false,
                ..word
            },
            epoch: run.epoch,
            run: run.run,
            tail: word.lsn,
            open: None,
            ready: VecDeque::new(),
            flights: VecDeque::new(),
            in_flight: 0,
            in_flight_max,
            failure: None,
            buffers: Vec::new(),
        }
    }

    /// Room for a batch of `need` bytes, in the open group or in a new one.
    fn room_for(&mut self, layout: &Layout, need: usize) -> &mut Waiting {
        let full = |open: &Waiting| open.builder.len() + need > open.room;
        if self.open.as_ref().is_some_and(full) {
            self.close();
        }
        let (tail, buffers) = (self.tail, &mut self.buffers);
        self.open.get_or_insert_with(|| {
            let least = group::HEADER_LEN + need;
            let lsn = layout.place(tail, least);
            Waiting {
                builder: Builder::new(buffers.pop().unwrap_or_default(), lsn),
                after: tail,
                room: GROUP_BYTES.max(least).min(layout.rest(lsn)),
                ticket: Arc::default(),
            }
        })
    }

    /// The open group takes nothing more.
    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            let len = group::padded(open.builder.len());
            self.tail = open.builder.lsn().after(len as u64);
            self.ready.push_back(open);
        }
    }

    /// A write that is worth its while: with more of them under way a group has to be larger.
    /// Measured with 4 and 16 threads on two cores: writing every record at once gave as many
    /// appends as there were writes, waiting for others gave fewer writes and more appends.
    fn may_lead(&self) -> bool {
        let open = self.open.as_ref().map_or(0, |open| open.builder.records());
        let waiting = !self.ready.is_empty() || open > 0 && open >= self.in_flight;
        waiting && self.failure.is_none() && self.in_flight < self.in_flight_max
    }

    /// Takes the oldest group that waits.
    fn take(&mut self) -> Option<Waiting> {
        if !self.may_lead() {
            return None;
        }
        if self.ready.is_empty() {
            self.close();
        }
        let group = self.ready.pop_front()?;
        let (lsn, len) = (group.builder.lsn(), group::padded(group.builder.len()));
        self.in_flight += 1;
        self.flights.push_back(Flight {
            lsn,
            end: lsn.after(len as u64),
            written: false,
            ticket: Arc::clone(&group.ticket),
        });
        Some(group)
    }

    /// Asks somebody whose group waits to lead.
    fn pass_on(&self) {
        if self.may_lead() {
            let oldest = self.ready.front().or(self.open.as_ref());
            if let Some(waiting) = oldest {
                waiting.ticket.set(State::Lead);
            }
        }
    }

    /// The groups at the front that are written; where the last of them ends.
    fn written(&mut self) -> Vec<Flight> {
        let count = self.flights.iter().take_while(|f| f.written).count();
        self.flights.drain(..count).collect()
    }

    /// Everybody whose group is not acknowledged and will not be.
    fn give_up(&mut self, error: &Error, news: &mut News) {
        let waiting = self.ready.drain(..).chain(self.open.take());
        news.extend(waiting.map(|group| (group.ticket, Err(error.clone()))));
        if self.in_flight == 0 {
            let flights = self.flights.drain(..);
            news.extend(flights.map(|flight| (flight.ticket, Err(error.clone()))));
        }
    }
}

/// Appends records as one batch; returns where their group ends, once that is acknowledged.
pub fn append(
    appender: &Appender,
    records: &[(Kind, &[u8])],
    mut placed: impl FnMut(Lsn),
) -> Result<Lsn> {
    let need: usize = records
        .iter()
        .map(|(_, p)| group::record_len(p.len()))
        .sum();
    let (len, max) = (need, appender.log.layout.group_max() - group::HEADER_LEN);
    if len > max {
        return Err(Error::TooLong { len, max });
    }
    if records.is_empty() {
        return Ok(appender.position());
    }
    let mut queue = appender.lock();
    if let Some(error) = &queue.failure {
        return Err(error.clone());
    }
    let group = queue.room_for(&appender.log.layout, need);
    for (kind, payload) in records {
        placed(group.builder.push(*kind, payload));
    }
    let ticket = Arc::clone(&group.ticket);
    lead(appender, queue);
    loop {
        match ticket.wait() {
            Some(result) => return result,
            None => lead(appender, appender.lock()),
        }
    }
}

/// Writes the oldest group that waits, if there is one and nobody else may.
fn lead(appender: &Appender, mut queue: MutexGuard<'_, Queue>) {
    let Some(group) = queue.take() else { return };
    let (committed, epoch, run) = (queue.word.lsn, queue.epoch, queue.run);
    // With several groups in flight the next one may be written at the same time.
    queue.pass_on();
    drop(queue);
    let (header, bytes) = group.builder.finish(group.after, committed, epoch, run);
    let result = write(appender, header.lsn, &bytes);
    let mut queue = appender.lock();
    if bytes.capacity() <= KEPT_BYTES && queue.buffers.len() < queue.in_flight_max as usize {
        queue.buffers.push(bytes);
    }
    let news = settle(appender, &mut queue, header.lsn, result);
    queue.pass_on();
    drop(queue);
    if news.iter().any(|(_, result)| result.is_ok()) {
        appender.log.control.ring();
    }
    for (ticket, result) in news {
        ticket.set(State::Done(result));
    }
}

fn write(appender: &Appender, lsn: Lsn, bytes: &[u8]) -> Result<()> {
    if appender.log.control.lease_is_over() {
        return Err(Error::LeaseOver);
    }
    let layout = &appender.log.layout;
    let (number, offset) = (layout.number(lsn), layout.offset(lsn));
    let base = appender.log.place(number)?;
    appender.log.share(lsn, bytes);
    let written = appender.log.writers.write(bytes, base + offset);
    written.map_err(|error| layout.failed("write", &error))?;
    let half = u64::from(layout.segment_bytes) / 2;
    if offset < half && offset + bytes.len() as u64 >= half {
        keeper::look_ahead(&appender.log, number + 1);
    }
    Ok(())
}

/// A leader is back: acknowledges what can be acknowledged, or ends what can't.
fn settle(appender: &Appender, queue: &mut Queue, lsn: Lsn, result: Result<()>) -> News {
    queue.in_flight -= 1;
    match result {
        Ok(()) => {
            let mut flights = queue.flights.iter_mut();
            if let Some(flight) = flights.find(|flight| flight.lsn == lsn) {
                flight.written = true;
            }
        }
        Err(error) => {
            queue.failure.get_or_insert(error);
        }
    }
    let mut news = News::new();
    let written = queue.written();
    if let Some(last) = written.last() {
        let acknowledged = acknowledge(appender, queue, last.end);
        if let Err(error) = &acknowledged {
            queue.failure.get_or_insert(error.clone());
        }
        for flight in written {
            let result = acknowledged.clone().map(|()| flight.end);
            news.push((flight.ticket, result));
        }
    }
    if let Some(error) = queue.failure.clone() {
        queue.give_up(&error, &mut news);
        if queue.in_flight == 0 {
            queue.failure = go_on(appender, queue, error).err();
        }
    }
    news
}

/// Moves the commit word to `end`. The lease is looked at once more behind it: whoever takes over
/// when it is over must be able to rely on it.
fn acknowledge(appender: &Appender, queue: &mut Queue, end: Lsn) -> Result<()> {
    let control = &appender.log.control;
    control.set_durable(end);
    queue.word = loop {
        match control.commit(queue.word, end) {
            Ok(word) => break word,
            // Everybody who appends waits behind our lock, as behind a database's write lock.
            Err(word) if word.frozen && !word.sealed => control.wait_thawed(),
            // Thawed in between.
            Err(word) if word == queue.word => {}
            Err(word) => return Err(appender.sealed(word)),
        }
    };
    match control.lease_is_over() {
        true => Err(Error::LeaseOver),
        false => Ok(()),
    }
}

/// After a failure: in a new run if it may pass, else never.
fn go_on(appender: &Appender, queue: &mut Queue, error: Error) -> Result<()> {
    if !error.is_no_space() && !matches!(error, Error::LeaseOver) {
        return Err(match error {
            Error::Sealed { .. } => error,
            other => Error::Broken {
                why: other.to_string(),
            },
        });
    }
    let lsn = queue.word.lsn;
    let run = appender.log.control.save(|run: &mut Run| {
        run.number += 1;
        run.run += 1;
        (run.began, run.lsn) = (lsn, lsn);
    });
    let run = run.map_err(|error| Error::Broken {
        why: error.to_string(),
    })?;
    (queue.run, queue.tail) = (run.run, lsn);
    Ok(())
}
