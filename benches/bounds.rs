//! What the machine itself can do, measured in the same run as ours: the denominators.
//!
//! Every function returns its samples in microseconds, unsorted, or a rate in MB/s.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Instant;

use rustix::fs::{CWD, RenameFlags, renameat_with};

const BLOCK: usize = 4096;
/// Blocks written one after the other, over and over.
const BLOCKS: u64 = 64;
const OUT: &str = "the bound of a bench can be measured";

/// A thread that sends back over loopback TCP what it is sent; it ends with this.
pub struct Echo(TcpStream);

impl Echo {
    pub fn start() -> Echo {
        let listener = TcpListener::bind("127.0.0.1:0").expect(OUT);
        let address = listener.local_addr().expect(OUT);
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect(OUT);
            stream.set_nodelay(true).expect(OUT);
            let mut bytes = [0; 64];
            while stream.read_exact(&mut bytes).is_ok() {
                stream.write_all(&bytes).expect(OUT);
            }
        });
        let stream = TcpStream::connect(address).expect(OUT);
        stream.set_nodelay(true).expect(OUT);
        Echo(stream)
    }

    /// 64 bytes there and back.
    pub fn ping(&mut self) {
        let mut bytes = [0; 64];
        self.0.write_all(&bytes).expect(OUT);
        self.0.read_exact(&mut bytes).expect(OUT);
    }
}

/// 64 bytes to another thread over loopback TCP and back, one after the other.
pub fn ping_pong(count: usize) -> Vec<f64> {
    let mut echo = Echo::start();
    sample(count, || echo.ping())
}

/// A 4 KiB write with O_DSYNC into blocks that exist.
pub fn write_dsync(dir: &Path, count: usize) -> Vec<f64> {
    blocks(dir, rustix::fs::OFlags::DSYNC.bits() as i32, count, |_| {})
}

/// A 4 KiB write into blocks that exist, and fdatasync.
pub fn fdatasync(dir: &Path, count: usize) -> Vec<f64> {
    blocks(dir, 0, count, |file| file.sync_data().expect(OUT))
}

/// Two names exchanged.
pub fn exchange(dir: &Path, count: usize) -> Vec<f64> {
    let (one, other) = (dir.join("bound-one"), dir.join("bound-other"));
    fs::write(&one, "1").expect(OUT);
    fs::write(&other, "2").expect(OUT);
    let samples = sample(count, || {
        renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).expect(OUT);
    });
    fs::remove_file(&one).expect(OUT);
    fs::remove_file(&other).expect(OUT);
    samples
}

/// MB/s of copying `from` beside itself, as cp(1) does (copy_file_range), and syncing the copy.
pub fn copy_rate(from: &Path) -> f64 {
    let to = from.with_extension("bound-copy");
    let begun = Instant::now();
    let bytes = fs::copy(from, &to).expect(OUT);
    let copy = OpenOptions::new().write(true).open(&to).expect(OUT);
    copy.sync_all().expect(OUT);
    let rate = megabytes(bytes as usize) / begun.elapsed().as_secs_f64();
    fs::remove_file(&to).expect(OUT);
    rate
}

/// Runs `once` as often as asked and takes the time of each.
pub fn sample(count: usize, mut once: impl FnMut()) -> Vec<f64> {
    (0..count)
        .map(|_| {
            let begun = Instant::now();
            once();
            begun.elapsed().as_secs_f64() * 1e6
        })
        .collect()
}

pub fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}

fn blocks(dir: &Path, flags: i32, count: usize, after: impl Fn(&File)) -> Vec<f64> {
    let path = dir.join("bound-blocks");
    fs::write(&path, vec![0; BLOCK * BLOCKS as usize]).expect(OUT);
    let mut options = OpenOptions::new();
    let file = options.write(true).custom_flags(flags).open(&path);
    let file = file.expect(OUT);
    file.sync_all().expect(OUT);
    let mut at = 0;
    let samples = sample(count, || {
        let offset = at % BLOCKS * BLOCK as u64;
        file.write_all_at(&[at as u8; BLOCK], offset).expect(OUT);
        after(&file);
        at += 1;
    });
    fs::remove_file(&path).expect(OUT);
    samples
}
