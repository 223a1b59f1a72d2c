//! Reads traces: CSV with a header, plain or compressed with zstd.
//!
//! | columns | what it is |
//! |---|---|
//! | a time, `value` or `requests`, perhaps an item | values of items in time |
//! | a time, an item and no value | accesses; each counts one |
//! | `day`, `vm`, `v0`, `v1` and so on | a day of values in a row |
//!
//! A time is `time`, `ts` (seconds, since 1970 or any other moment), `ts_us`, `minute` or `t`
//! (hours); an item is `item`, `series`, `key`, `block`, `lbn` or `node`. Without a time the
//! number of the row is one: caches are traced so.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use model::series::Series;

/// Bytes that a zstd frame begins with.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Of accesses the items with the most are taken.
const ITEMS_MAX: usize = 200;

/// What of a trace can't be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read {path}: {source}", path = path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path}, row {row}: {source}", path = path.display())]
    Row {
        path: PathBuf,
        row: u64,
        source: csv::Error,
    },
    #[error(
        "{path}: no column says what a row is; expected a time and a value, or an item \
         (columns: {columns})",
        path = path.display()
    )]
    Columns { path: PathBuf, columns: String },
    #[error(
        "{path}: {bad} of {rows} rows are unreadable, the first is row {first}",
        path = path.display()
    )]
    Damaged {
        path: PathBuf,
        bad: u64,
        rows: u64,
        first: u64,
    },
    #[error("{path}: nothing in it", path = path.display())]
    Empty { path: PathBuf },
    #[error("{path} holds accesses and the others values, or the other way round: evaluate it \
             by itself", path = path.display())]
    Mixed { path: PathBuf },
}

/// A trace, as series.
#[derive(Debug)]
pub struct Trace {
    pub series: Vec<Series>,
    pub rows: u64,
    /// Rows that were left out because they could not be read.
    pub bad: u64,
    /// Values are counts of accesses.
    pub accesses: bool,
}

/// What the columns mean.
#[derive(Clone, Debug)]
struct Columns {
    time: Option<(usize, Unit)>,
    item: Option<usize>,
    value: Option<usize>,
    date: Option<usize>,
    /// Of a row that holds a day: the first value, and how many.
    day: Option<(usize, usize)>,
}

#[derive(Clone, Copy, Debug)]
struct Unit {
    /// Units a second, or seconds a unit.
    per_second: f64,
}

const TIMES: [(&str, f64); 5] = [
    ("time", 1.0),
    ("ts", 1.0),
    ("ts_us", 1e6),
    ("minute", 1.0 / 60.0),
    ("t", 1.0 / 3600.0),
];
const ITEMS: [&str; 7] = ["item", "series", "key", "block", "lbn", "vm", "node"];
const VALUES: [&str; 2] = ["value", "requests"];

impl Columns {
    fn of(header: &csv::StringRecord) -> Option<Columns> {
        let place = |name: &str| header.iter().position(|column| column.trim() == name);
        let first = |names: &[&str]| names.iter().find_map(|name| place(name));
        let time = TIMES.iter().find_map(|(name, per_second)| {
            let unit = Unit {
                per_second: *per_second,
            };
            place(name).map(|at| (at, unit))
        });
        let day = place("v0").filter(|_| place("day").is_some()).map(|begin| {
            let values = header.iter().skip(begin).take_while(|c| c.starts_with('v'));
            (begin, values.count())
        });
        let columns = Columns {
            time,
            item: first(&ITEMS),
            value: first(&VALUES),
            date: place("day"),
            day,
        };
        let says = columns.value.is_some() && columns.time.is_some();
        (says || columns.item.is_some()).then_some(columns)
    }
}

/// Points of one item.
type Points = BTreeMap<String, Vec<(i64, f32)>>;

/// Reads several traces of one sort into series of equal bins.
pub fn read_all(paths: &[PathBuf], step: u32) -> Result<Trace, Error> {
    let mut traces = Vec::new();
    for path in paths {
        traces.push(read(path, step)?);
    }
    let widest = traces.iter().flat_map(|trace| &trace.series);
    let widest = widest.map(|series| series.step).max().unwrap_or(step);
    let mut all: Option<Trace> = None;
    for (path, mut trace) in paths.iter().zip(traces) {
        if trace.series.iter().any(|series| series.step != widest) {
            trace = read(path, widest)?;
        }
        match &mut all {
            None => all = Some(trace),
            Some(all) if all.accesses != trace.accesses => {
                return Err(Error::Mixed { path: path.clone() });
            }
            Some(all) => {
                all.series.append(&mut trace.series);
                all.rows += trace.rows;
                all.bad += trace.bad;
            }
        }
    }
    all.ok_or_else(|| Error::Empty {
        path: PathBuf::new(),
    })
}

/// Reads a trace into series of bins of `step` seconds, or of its own distance if that is longer.
pub fn read(path: &Path, step: u32) -> Result<Trace, Error> {
    let input = open(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(input);
    let wrong = |row: u64, source: csv::Error| Error::Row {
        path: path.to_owned(),
        row,
        source,
    };
    let header = reader.headers().map_err(|error| wrong(1, error))?.clone();
    let columns = Columns::of(&header).ok_or_else(|| Error::Columns {
        path: path.to_owned(),
        columns: header.iter().collect::<Vec<_>>().join(", "),
    })?;
    let mut points = Points::new();
    let (mut rows, mut bad, mut first_bad) = (0, 0, 0);
    let mut record = csv::StringRecord::new();
    loop {
        match reader.read_record(&mut record) {
            Ok(false) => break,
            Ok(true) => {}
            Err(error) if error.is_io_error() => return Err(wrong(rows + 2, error)),
            Err(_) => record.clear(),
        }
        rows += 1;
        if take(&columns, &record, rows, &mut points).is_none() {
            bad += 1;
            first_bad = if bad == 1 { rows + 1 } else { first_bad };
        }
    }
    if bad * 2 > rows {
        return Err(Error::Damaged {
            path: path.to_owned(),
            bad,
            rows,
            first: first_bad,
        });
    }
    let accesses = columns.value.is_none() && columns.day.is_none();
    let series = match accesses {
        false => values(&points, step),
        true => counts(points, step),
    };
    if series.is_empty() {
        return Err(Error::Empty {
            path: path.to_owned(),
        });
    }
    Ok(Trace {
        series,
        rows,
        bad,
        accesses,
    })
}

fn open(path: &Path) -> std::io::Result<Box<dyn Read>> {
    let mut file = File::open(path)?;
    let mut begin = [0; 4];
    let is_zstd = file.read_exact(&mut begin).is_ok() && begin == ZSTD;
    file.rewind()?;
    Ok(match is_zstd {
        true => Box::new(zstd::stream::read::Decoder::new(file)?),
        false => Box::new(BufReader::new(file)),
    })
}

/// Takes one row in; `None` if it can't be read.
fn take(
    columns: &Columns,
    record: &csv::StringRecord,
    row: u64,
    points: &mut Points,
) -> Option<()> {
    if let Some((begin, count)) = columns.day {
        let midnight = midnight(record.get(columns.date?)?.trim())?;
        let seconds = 86_400 / count.max(1) as i64;
        let day = record.iter().skip(begin).take(count).enumerate();
        let day = day.map(|(bin, value)| {
            let value: f32 = value.trim().parse().ok()?;
            Some((midnight + bin as i64 * seconds, value))
        });
        let day: Vec<_> = day.collect::<Option<_>>()?;
        let item = record.get(columns.item?)?.to_owned();
        points.entry(item).or_default().extend(day);
        return Some(());
    }
    let time = match columns.time {
        Some((at, unit)) => {
            let number: f64 = record.get(at)?.trim().parse().ok()?;
            let seconds = number / unit.per_second;
            (seconds.abs() < 1e15).then_some(seconds as i64)?
        }
        None => row as i64,
    };
    let value = match columns.value {
        Some(at) => record.get(at)?.trim().parse().ok()?,
        None => 1.0,
    };
    let item = match columns.item {
        Some(at) => record.get(at)?,
        None => "all",
    };
    match points.get_mut(item) {
        Some(all) => all.push((time, value)),
        None => drop(points.insert(item.to_owned(), vec![(time, value)])),
    }
    Some(())
}

/// Seconds from 1970 to the beginning of a day that is written as 20110303.
fn midnight(date: &str) -> Option<i64> {
    let number: i64 = date.parse().ok().filter(|_| date.len() == 8)?;
    let (year, month, day) = (number / 10_000, number / 100 % 100, number % 100);
    let in_range = (1..=12).contains(&month) && (1..=31).contains(&day);
    in_range.then_some(())?;
    // Years begin in March here, so that the leap day is the last one.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    Some((days - 719_468) * 86_400)
}

fn values(points: &Points, step: u32) -> Vec<Series> {
    let series = points.iter();
    series
        .filter_map(|(name, points)| Series::binned(name, points, step))
        .collect()
}

/// How often each of the items with the most accesses was asked for, bin by bin, over the whole
/// time of the trace: a bin without an access is 0, not unknown.
fn counts(points: Points, step: u32) -> Vec<Series> {
    let times = || points.values().flatten().map(|(time, _)| *time);
    let (Some(first), Some(last)) = (times().min(), times().max()) else {
        return Vec::new();
    };
    let step = i64::from(step.max(1));
    let bin = |time: i64| time.div_euclid(step) - first.div_euclid(step);
    let bins = bin(last) as usize + 1;
    let mut items: Vec<(&String, &Vec<(i64, f32)>)> = points.iter().collect();
    items.sort_by_key(|(name, all)| (std::cmp::Reverse(all.len()), *name));
    items.truncate(ITEMS_MAX);
    let series = items.into_iter().map(|(name, all)| {
        let mut values = vec![0.0; bins];
        for (time, value) in all {
            values[bin(*time) as usize] += value;
        }
        Series {
            name: name.clone(),
            start: first.div_euclid(step) * step,
            step: step as u32,
            values,
        }
    });
    series.collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn trace(text: &str, step: u32) -> Result<Trace, Error> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("trace.csv");
        std::fs::write(&path, text).expect("written");
        read(&path, step)
    }

    #[test]
    fn values_in_time_become_series() {
        let text = "series,ts,value\na,0,1\na,60,3\nb,0,5\nb,60,7\na,120,5\nb,120,9\n";
        let trace = trace(text, 60).expect("readable");
        assert_eq!((trace.rows, trace.bad), (6, 0));
        let values: Vec<_> = trace
            .series
            .iter()
            .map(|s| (&*s.name, s.values.clone()))
            .collect();
        assert_eq!(
            values,
            [("a", vec![1.0, 3.0, 5.0]), ("b", vec![5.0, 7.0, 9.0])]
        );
    }

    #[test]
    fn hours_and_minutes_are_times_too() {
        let hours = trace("series,t,value\nH1,0,605.0\nH1,1,586.0\n", 60).expect("readable");
        assert_eq!(
            (hours.series[0].step, hours.series[0].values.len()),
            (3600, 2)
        );
        let minutes = trace("minute,requests\n0,42\n1,62\n2,1\n", 60).expect("readable");
        assert_eq!(minutes.series[0].values, [42.0, 62.0, 1.0]);
        assert_eq!(minutes.series[0].name, "all");
    }

    #[test]
    fn a_row_may_hold_a_day() {
        let text = "day,vm,v0,v1\n20110303,7,1,2\n20110305,7,5,6\n";
        let series = trace(text, 60).expect("readable").series.remove(0);
        assert_eq!(
            (&*series.name, series.start, series.step),
            ("7", 1_299_110_400, 43_200)
        );
        assert_eq!(series.values[..2], [1.0, 2.0]);
        assert!(series.values[2].is_nan(), "the day between");
        assert_eq!(series.values[4..], [5.0, 6.0]);
    }

    #[test]
    fn accesses_are_counted_and_no_access_is_zero() {
        let text = "ts,user,key\n0,u,a\n1,u,a\n30,u,b\n95,u,a\n";
        let series = trace(text, 30).expect("readable").series;
        assert_eq!(series[0].name, "a");
        assert_eq!(series[0].values, [2.0, 0.0, 0.0, 1.0]);
        assert_eq!(series[1].values, [0.0, 1.0, 0.0, 0.0]);
        let rows = trace("key\nx\ny\nx\n", 2).expect("readable").series;
        assert_eq!(rows[0].values.iter().sum::<f32>(), 2.0);
    }

    #[test]
    fn zstd_is_recognised_by_its_first_bytes() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("trace.csv");
        let plain = b"time,item,value\n0,a,1\n60,a,2\n";
        let mut file = File::create(&path).expect("a file");
        let packed = zstd::stream::encode_all(&plain[..], 1).expect("packed");
        file.write_all(&packed).expect("written");
        assert_eq!(
            read(&path, 60).expect("readable").series[0].values,
            [1.0, 2.0]
        );
        file.set_len(packed.len() as u64 / 2).expect("cut");
        let cut = read(&path, 60).expect_err("cut short").to_string();
        assert!(cut.contains("trace.csv"), "{cut}");
    }

    #[test]
    fn a_few_bad_rows_are_counted_and_many_are_an_error() {
        let few = trace("time,value\n0,1\n60,x\n120,3\n180,NaN\n240,5\n", 60);
        let few = few.expect("mostly readable");
        assert_eq!((few.rows, few.bad), (5, 1));
        let many = trace("time,value\n0,1\n?,x\n,\n", 60).expect_err("damaged");
        assert!(
            many.to_string()
                .contains("2 of 3 rows are unreadable, the first is row 3")
        );
        let odd = trace("colour,shape\nred,round\n", 60).expect_err("no columns");
        assert!(odd.to_string().contains("colour, shape"), "{odd}");
        let empty = trace("time,value\n", 60).expect_err("nothing");
        assert!(empty.to_string().contains("nothing in it"), "{empty}");
        assert!(read(Path::new("/nowhere"), 60).is_err());
    }
}
