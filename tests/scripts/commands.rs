//! What a script can say.
//!
//! | command | meaning |
//! |---|---|
//! | `nodes a b` | nodes of one cluster, started |
//! | `cluster a other` | a is of another cluster |
//! | `found a 3` | a database with three writes is found at a |
//! | `link a b`, `break a b` | the link comes up, breaks |
//! | `reverse off` | nobody keeps a shadow at the node that it came from |
//! | `shadow a b`, `unshadow a b` | a keeps a shadow at b, keeps none |
//! | `write a 2` | two writes at a, refused while a lock or fence is in place |
//! | `move a b`, `cancel a`, `remove a` | what people ask for |
//! | `promote b`, `promote b force` | so do those whose owner is gone, or is not |
//! | `hold a word` | what a does or says is kept back if its line has this word |
//! | `release a word`, `drop a word` | it happens now and from now on, or never |
//! | `fail a word` | it is answered with a failure |
//! | `half a word` | it happens, the answer is never heard |
//! | `late a word`, `answer a` | it happens, the answer comes later: now |
//! | `deaf a`, `news a` | news of owners stop reaching a; it hears the newest |
//! | `trim a` | the delta log of a is cut off |
//! | `tick 500` | milliseconds pass |
//! | `crash a`, `start a` | a daemon dies, starts |
//! | `power a` | a machine loses power before the exchange of a path was durable |
//! | `show` | roles and contents |

use std::collections::VecDeque;

use foreshadow::effect::{Effect, Effects};
use foreshadow::event::{Asked, Event, Failure, Ticket};
use foreshadow::serve::query::{NodeName, Query};
use foreshadow::shard::Role;
use foreshadow::switch;
use wal::{Epoch, Span};

use crate::shell::{Live, position};
use crate::world::{Held, World, database};

impl World {
    pub fn obey(&mut self, command: &str) {
        let words: Vec<&str> = command.split(' ').collect();
        match words.as_slice() {
            ["nodes", names @ ..] => self.add_nodes(names),
            ["cluster", name, cluster] => {
                self.node(name).settings.cluster = (*cluster).to_owned();
                self.crash(name);
                self.start(name);
            }
            ["reverse", "off"] => self.keep_no_reverse(),
            ["found", name, count] => self.found(name, number(count)),
            ["link", one, two] => self.link_comes_up(one, two),
            ["break", one, two] => {
                self.link_breaks(one, two);
                self.settle();
            }
            ["write", name, count] => self.write(name, number(count)),
            ["hold", name, word] => self.held.push(Held {
                node: (*name).to_owned(),
                word: (*word).to_owned(),
                kept: VecDeque::new(),
            }),
            [
                verb @ ("release" | "drop" | "fail" | "half" | "late"),
                name,
                word,
            ] => {
                self.let_go(verb, name, word);
            }
            ["answer", name] => {
                let late = std::mem::take(&mut self.node(name).late);
                self.node(name).inbox.extend(late);
                self.settle();
            }
            ["deaf", name] => {
                self.deaf.insert((*name).to_owned());
            }
            ["news", name] => {
                self.news(name);
                self.settle();
            }
            ["trim", name] => {
                let live = self.node(name).disk.live.as_mut().expect("a live database");
                live.log_from = live.content.len();
            }
            ["tick", millis] => self.tick(Span::millis(number(millis))),
            ["crash", name] => self.crash(name),
            ["power", name] => self.lose_power(name),
            ["start", name] => self.start(name),
            ["show"] => self.show(),
            _ => self.people(command, &words),
        }
    }

    fn people(&mut self, command: &str, words: &[&str]) {
        let node = |name: &str| NodeName::new(name).expect("a node name");
        let partition = database();
        let (name, query) = match words {
            ["shadow", name, to] => {
                let to = node(to);
                (name, Query::AddShadow { partition, to })
            }
            ["unshadow", name, from] => {
                let node = node(from);
                (name, Query::RemoveShadow { partition, node })
            }
            ["move", name, to] => {
                let query = Query::StartMove {
                    partition,
                    to: node(to),
                    dry_run: false,
                    timeout: Span::secs(30),
                };
                (name, query)
            }
            ["cancel", name] => {
                let id = self.newest_move(name);
                (name, Query::CancelMove { id })
            }
            ["remove", name] => (name, Query::RemovePartition { partition }),
            ["promote", name, rest @ ..] => {
                let force = rest == ["force"];
                (name, Query::Promote { partition, force })
            }
            _ => panic!("a script can't say {command:?}"),
        };
        let asked = Asked(1);
        self.tell(name, Event::Asked { asked, query });
        self.settle();
    }

    fn keep_no_reverse(&mut self) {
        let names: Vec<String> = self.nodes.keys().cloned().collect();
        for name in names {
            self.node(&name).settings.switch.keep_reverse = false;
            self.crash(&name);
            self.start(&name);
        }
    }

    fn newest_move(&mut self, name: &str) -> foreshadow::serve::query::MoveId {
        let now = self.now;
        let shard = self.node(name).shard.as_mut().expect("a running daemon");
        let mut out = Effects::default();
        let query = Query::Moves;
        let asked = Asked(2);
        shard.step(now, Event::Asked { asked, query }, &mut out);
        let moves = out.0.into_iter().find_map(|effect| match effect {
            Effect::Reply {
                reply: Ok(foreshadow::serve::reply::Reply::Moves(moves)),
                ..
            } => Some(moves),
            _ => None,
        });
        moves
            .and_then(|moves| moves.last().map(|entry| entry.id))
            .expect("a move")
    }

    fn found(&mut self, name: &str, writes: u64) {
        let first = self.writes;
        self.writes += writes;
        let content: Vec<u64> = (first..self.writes).collect();
        self.node(name).disk.live = Some(Live {
            landed: None,
            content,
            epoch: Epoch(1),
            frozen: false,
            fenced: false,
            log_from: 0,
        });
        self.tell(name, Event::Found { name: database() });
        self.settle();
    }

    fn write(&mut self, name: &str, count: u64) {
        for _ in 0..count {
            self.writes += 1;
            let write = self.writes;
            let Some(live) = self.node(name).disk.live.as_mut() else {
                self.log.push(format!("no database at {name}"));
                return;
            };
            if live.frozen || live.fenced {
                let why = if live.fenced { "readonly" } else { "busy" };
                self.log.push(format!("the write is refused: {why}"));
                return;
            }
            live.content.push(write);
            let at = position(live.epoch, &live.content);
            let partition = database().id();
            let is_owner = self
                .node(name)
                .shard
                .as_ref()
                .and_then(|shard| shard.partitions().get(&partition))
                .is_some_and(|partition| matches!(partition.role, Role::Owner(_)));
            if is_owner {
                let bytes = 50;
                let event = Event::Advanced {
                    partition,
                    position: at,
                    bytes,
                };
                self.tell(name, event);
            }
            self.settle();
        }
    }

    fn let_go(&mut self, verb: &str, name: &str, word: &str) {
        let place = self
            .held
            .iter()
            .position(|held| held.node == name && held.word == word)
            .unwrap_or_else(|| panic!("nothing of {name} is held by {word:?}"));
        let held = self.held.remove(place);
        for effect in held.kept {
            match verb {
                "release" => self.execute(name, effect),
                "half" => {
                    let before = self.node(name).inbox.len();
                    self.execute(name, effect);
                    self.node(name).inbox.truncate(before);
                }
                "late" => {
                    let before = self.node(name).inbox.len();
                    self.execute(name, effect);
                    let late = self.node(name).inbox.split_off(before);
                    self.node(name).late.extend(late);
                }
                "fail" => {
                    let failure = Failure::Refused("it failed".to_owned());
                    if let Some(ticket) = ticket_of(&effect) {
                        self.done(name, ticket, Err(failure));
                    }
                }
                _ => {}
            }
        }
        self.settle();
    }

    fn show(&mut self) {
        let mut lines = Vec::new();
        for node in self.nodes.values() {
            let partition = database().id();
            let known = node.shard.as_ref().map(|shard| shard.partitions());
            let role = match known.map(|known| known.get(&partition)) {
                None => "down".to_owned(),
                Some(None) => "knows nothing".to_owned(),
                Some(Some(partition)) => match &partition.role {
                    Role::Owner(owner) => match owner.source.state() {
                        switch::source::State::Serving => "owner".to_owned(),
                        state => format!("owner, {}", first_word(&format!("{state:?}"))),
                    },
                    Role::Shadow(shadow) => {
                        let copy = first_word(&format!("{:?}", shadow.receiver.copy()));
                        let state = first_word(&format!("{:?}", shadow.target.state()));
                        format!("shadow, copy {copy}, {state}")
                    }
                    role => first_word(&format!("{role:?}")).to_lowercase(),
                },
            };
            let live = node.disk.live.as_ref().map(|live| {
                let fenced = if live.fenced { ", fenced" } else { "" };
                format!("; live with {} writes{fenced}", live.content.len())
            });
            let copy = node.disk.copy.as_ref();
            let copy = copy.map(|copy| format!("; copy of {} writes", copy.content.len()));
            lines.push(format!(
                "{}: {role}{}{}",
                node.name,
                live.unwrap_or_default(),
                copy.unwrap_or_default()
            ));
        }
        self.log.extend(lines);
    }
}

fn number(text: &str) -> u64 {
    text.parse().expect("a number")
}

fn first_word(text: &str) -> String {
    let end = text.find([' ', '(', '{']).unwrap_or(text.len());
    text[..end].to_owned()
}

fn ticket_of(effect: &Effect) -> Option<Ticket> {
    match effect {
        Effect::Engine { ticket, .. }
        | Effect::Shadow { ticket, .. }
        | Effect::Ship { ticket, .. }
        | Effect::Copy { ticket, .. }
        | Effect::Compare { ticket, .. }
        | Effect::Record { ticket, .. }
        | Effect::Coordinate { ticket, .. } => Some(*ticket),
        _ => None,
    }
}
