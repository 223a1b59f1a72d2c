//! The live view: redrawn in place on a terminal, one line a second on standard error otherwise.
//!
//! It asks the daemons by itself from a thread of its own, so the story never waits for it.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::acks;
use super::harness::{Cluster, percentile};
use super::http;
use super::sampler::Measured;

/// How often it is drawn.
const EVERY: Duration = Duration::from_secs(1);

/// Events that stay on the screen.
const EVENTS: usize = 10;

/// A daemon that does not answer so fast is shown as silent.
const PATIENCE: Duration = Duration::from_millis(500);

/// What the story tells the audience.
#[derive(Debug)]
pub struct Stage {
    scene: Mutex<Scene>,
    over: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
    began: Instant,
    nodes: Vec<(String, PathBuf)>,
    acks: PathBuf,
    drawn: bool,
}

#[derive(Debug, Default)]
struct Scene {
    phase: String,
    events: VecDeque<String>,
    measured: Option<Arc<Measured>>,
    acked: u64,
    lags_seen: usize,
}

/// One node's line.
struct Line {
    name: String,
    owned: usize,
    shadows: usize,
    waiting: usize,
    behind: u64,
    up: bool,
}

impl Stage {
    /// Opens the view; it is redrawn in place if standard output is a terminal and not for JSON.
    pub fn open(cluster: &Cluster, json: bool) -> Arc<Stage> {
        let places = cluster.nodes.iter().map(|node| &node.place);
        let stage = Arc::new(Stage {
            scene: Mutex::default(),
            over: AtomicBool::new(false),
            thread: Mutex::new(None),
            began: Instant::now(),
            nodes: places
                .map(|place| (place.name.clone(), place.socket()))
                .collect(),
            acks: cluster.acks(),
            drawn: std::io::stdout().is_terminal() && !json,
        });
        let drawer = Arc::clone(&stage);
        let thread = thread::spawn(move || drawer.draw_until_over());
        *stage.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        stage
    }

    /// What happens now.
    pub fn phase(&self, phase: &str) {
        self.scene().phase = phase.to_owned();
    }

    /// What has happened.
    pub fn event(&self, line: &str) {
        let mut scene = self.scene();
        if scene.events.len() == EVENTS {
            scene.events.pop_front();
        }
        scene.events.push_back(format!(
            "{:5.1} s  {line}",
            self.began.elapsed().as_secs_f64()
        ));
        if !self.drawn {
            eprintln!("{:5.1} s  {line}", self.began.elapsed().as_secs_f64());
        }
    }

    /// Where lag comes from.
    pub fn measured(&self, measured: &Arc<Measured>) {
        self.scene().measured = Some(Arc::clone(measured));
    }

    /// Closes the view.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            thread.thread().unpark();
            // A panicking view only fails to draw.
            let _ = thread.join();
        }
    }

    fn scene(&self) -> MutexGuard<'_, Scene> {
        self.scene.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw_until_over(&self) {
        let mut height = 0;
        while !self.over.load(Ordering::Relaxed) {
            let lines: Vec<Line> = self
                .nodes
                .iter()
                .map(|(name, socket)| line(name, socket))
                .collect();
            let summary = self.summary(&lines);
            if self.drawn {
                height = self.redraw(&summary, &lines, height);
            } else {
                eprintln!("{summary}  {}", self.scene().phase);
            }
            thread::park_timeout(EVERY);
        }
    }

    fn summary(&self, lines: &[Line]) -> String {
        let acked: u64 = acks::counts(&self.acks).values().sum();
        let mut scene = self.scene();
        let rate = acked - scene.acked;
        scene.acked = acked;
        let lags = scene
            .measured
            .as_ref()
            .map(|measured| measured.lags_ms())
            .unwrap_or_default();
        let mut recent = lags[scene.lags_seen.min(lags.len())..].to_vec();
        scene.lags_seen = lags.len();
        let (p50, p99) = (percentile(&mut recent, 0.5), percentile(&mut recent, 0.99));
        let owned: usize = lines.iter().map(|line| line.owned).sum();
        let waiting: usize = lines.iter().map(|line| line.waiting).sum();
        let shadows: usize = lines.iter().map(|line| line.shadows).sum();
        format!(
            "{:5.1} s  {acked} writes, {rate}/s  lag p50 {p50:.2} p99 {p99:.2} ms  \
             {owned} owned, {shadows} shadows, {waiting} filling",
            self.began.elapsed().as_secs_f64()
        )
    }

    fn redraw(&self, summary: &str, lines: &[Line], height: usize) -> usize {
        let scene = self.scene();
        let mut rows = vec![
            format!("Foreshadow demo: {}", scene.phase),
            summary.to_owned(),
        ];
        rows.push(format!(
            "{:8} {:>6} {:>8} {:>8} {:>13}",
            "", "owns", "shadows", "filling", "bytes behind"
        ));
        for line in lines {
            let Line {
                name,
                owned,
                shadows,
                waiting,
                behind,
                up,
            } = line;
            rows.push(if *up {
                format!("{name:8} {owned:>6} {shadows:>8} {waiting:>8} {behind:>13}")
            } else {
                format!("{name:8} {:>6}", "silent")
            });
        }
        rows.extend(scene.events.iter().cloned());
        // CSI A: up; CSI K: clear to the end of the line; CSI J: clear below.
        let mut text = if height > 0 {
            format!("\x1b[{height}A\r")
        } else {
            String::new()
        };
        for row in &rows {
            text.push_str(row);
            text.push_str("\x1b[K\n");
        }
        text.push_str("\x1b[J");
        let mut out = std::io::stdout().lock();
        // Nothing is lost when the terminal is.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        rows.len()
    }
}

/// Says that the demo ended before its end.
pub fn leave() {
    eprintln!("\nforeshadow demo: interrupted");
}

fn line(name: &str, socket: &std::path::Path) -> Line {
    let mut line = Line {
        name: name.to_owned(),
        owned: 0,
        shadows: 0,
        waiting: 0,
        behind: 0,
        up: false,
    };
    let Ok(answer) = http::request(socket, "GET", "/v1/partitions", None, PATIENCE) else {
        return line;
    };
    line.up = answer.status == 200;
    for row in answer.body.as_array().into_iter().flatten() {
        match row["role"].as_str() {
            Some("owner") => line.owned += 1,
            Some("shadow") => line.shadows += 1,
            _ => {}
        }
        for shadow in row["shadows"].as_array().into_iter().flatten() {
            line.waiting += usize::from(shadow["state"] == "filling");
            line.behind += shadow["lag_bytes"].as_u64().unwrap_or(0);
        }
    }
    line
}
