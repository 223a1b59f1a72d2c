//! Breadth-first search through every state of a model, with the shortest counterexample.
//!
//! Only fingerprints are kept of visited states; a counterexample is replayed from the start. Two
//! kinds of fault are found: a reachable state that breaks an invariant, and a reachable state from
//! which no settled state can be reached without further faults (backward reachability).

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash, Hasher};

/// More states than this mean that a model is not bounded.
const STATES_MAX: usize = 6_000_000;

/// A world, what can happen in it, and what must be true of it.
pub trait Model {
    type State: Clone + Hash;
    type Action: Clone + fmt::Display;

    fn start(&self) -> Self::State;
    fn actions(&self, state: &Self::State) -> Vec<Self::Action>;
    fn apply(&self, state: &mut Self::State, action: &Self::Action);
    /// The name of an invariant that does not hold here.
    fn broken(&self, state: &Self::State) -> Option<&'static str>;
    /// Nothing is under way and the service is whole.
    fn is_settled(&self, state: &Self::State) -> bool;
    /// Whether the world must do this by itself if nothing goes wrong any more.
    fn is_progress(&self, action: &Self::Action) -> bool;
    /// One line about a state, for traces.
    fn describe(&self, state: &Self::State) -> String;
}

/// What the search found.
#[derive(Debug)]
pub struct Report {
    pub states: usize,
    pub transitions: usize,
    pub counterexample: Option<Counterexample>,
}

/// The shortest way to a broken promise.
#[derive(Debug)]
pub struct Counterexample {
    pub promise: &'static str,
    pub steps: usize,
    pub trace: String,
}

struct Search<'a, M: Model> {
    model: &'a M,
    seen: HashMap<u64, u32>,
    /// How each state was first reached: from where, by which of its actions.
    parents: Vec<(u32, u32)>,
    settled: Vec<u32>,
    /// Edges of progress, as (to, from).
    edges: Vec<(u32, u32)>,
    transitions: usize,
}

/// Searches every reachable state, then checks that each can settle.
pub fn explore<M: Model>(model: &M) -> Report {
    let mut search = Search {
        model,
        seen: HashMap::new(),
        parents: Vec::new(),
        settled: Vec::new(),
        edges: Vec::new(),
        transitions: 0,
    };
    let broken = search.run();
    let counterexample = match broken {
        Some((promise, state)) => Some(search.counterexample(promise, state)),
        None => search
            .stuck()
            .map(|state| search.counterexample("liveness: a settled state can be reached", state)),
    };
    Report {
        states: search.parents.len(),
        transitions: search.transitions,
        counterexample,
    }
}

fn fingerprint(state: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

impl<M: Model> Search<'_, M> {
    /// Layer by layer; the first broken promise is the nearest one.
    fn run(&mut self) -> Option<(&'static str, u32)> {
        let start = self.model.start();
        self.admit(&start, (u32::MAX, 0));
        let mut layer = vec![(0, start)];
        while !layer.is_empty() {
            let mut next = Vec::new();
            for (from, state) in layer {
                for (index, action) in self.model.actions(&state).iter().enumerate() {
                    let mut after = state.clone();
                    self.model.apply(&mut after, action);
                    self.transitions += 1;
                    let (to, fresh) = self.admit(&after, (from, index as u32));
                    if self.model.is_progress(action) && to != from {
                        self.edges.push((to, from));
                    }
                    if !fresh {
                        continue;
                    }
                    if let Some(promise) = self.model.broken(&after) {
                        return Some((promise, to));
                    }
                    next.push((to, after));
                }
            }
            assert!(self.parents.len() < STATES_MAX, "the model is not bounded");
            layer = next;
        }
        None
    }

    fn admit(&mut self, state: &M::State, parent: (u32, u32)) -> (u32, bool) {
        let next = self.parents.len() as u32;
        let index = *self.seen.entry(fingerprint(state)).or_insert(next);
        if index < next {
            return (index, false);
        }
        self.parents.push(parent);
        if self.model.is_settled(state) {
            self.settled.push(index);
        }
        (index, true)
    }

    /// The first state from which progress alone never settles.
    fn stuck(&mut self) -> Option<u32> {
        self.edges.sort_unstable();
        self.edges.dedup();
        let mut settles = vec![false; self.parents.len()];
        let mut queue = self.settled.clone();
        for state in &queue {
            settles[*state as usize] = true;
        }
        while let Some(state) = queue.pop() {
            let first = self.edges.partition_point(|(to, _)| *to < state);
            for (to, from) in &self.edges[first..] {
                if *to != state {
                    break;
                }
                if !std::mem::replace(&mut settles[*from as usize], true) {
                    queue.push(*from);
                }
            }
        }
        let stuck = settles.iter().position(|settles| !settles)?;
        Some(stuck as u32)
    }

    fn counterexample(&self, promise: &'static str, state: u32) -> Counterexample {
        let mut path = Vec::new();
        let mut at = state;
        while at != 0 {
            let (parent, action) = self.parents[at as usize];
            path.push(action);
            at = parent;
        }
        path.reverse();
        let mut state = self.model.start();
        let mut trace = format!("broken: {promise}\n      {}\n", self.model.describe(&state));
        for (step, index) in path.iter().enumerate() {
            let action = self.model.actions(&state)[*index as usize].clone();
            self.model.apply(&mut state, &action);
            let line = format!(
                "{:4}. {action}\n      {}\n",
                step + 1,
                self.model.describe(&state)
            );
            trace.push_str(&line);
        }
        Counterexample {
            promise,
            steps: path.len(),
            trace,
        }
    }
}
