//! Shard threads in the test process, each test bounded in time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};

use wal::Span;

use super::*;
use crate::ring::Token;

const WAIT: Duration = Duration::from_secs(10);

fn stop_at_once(ends: std::sync::mpsc::Sender<End>) -> impl FnMut(End) -> Next + Send {
    move |end| {
        ends.send(end).unwrap();
        Next::Stop
    }
}

fn receive<T>(receiver: &Receiver<T>) -> T {
    receiver.recv_timeout(WAIT).expect("the shard says nothing")
}

#[test]
fn a_wait_ends_with_a_wake_a_deadline_or_a_completion() {
    let (said, heard) = channel();
    let (ends, ended) = channel();
    let body = move |mut context: ShardContext| {
        let said = said.clone();
        async move {
            context.wait(None).await?;
            said.send("woken").unwrap();
            let deadline = now() + Span::millis(20);
            context.wait(Some(deadline)).await?;
            assert!(now() >= deadline);
            assert!(context.ring.completion().is_none());
            said.send("deadline").unwrap();
            context.ring.timeout(Token(1), now() + Span::millis(5));
            context.wait(None).await?;
            assert_eq!(context.ring.completion().unwrap().token, Token(1));
            said.send("completion").unwrap();
            Ok(())
        }
    };
    let shard = spawn_shard("waits", None, body, stop_at_once(ends)).unwrap();
    std::thread::sleep(Duration::from_millis(30));
    assert!(heard.try_recv().is_err(), "sleeps until woken");
    shard.wake().wake();
    assert_eq!(receive(&heard), "woken");
    assert_eq!(receive(&heard), "deadline");
    assert_eq!(receive(&heard), "completion");
    assert!(matches!(receive(&ended), End::Finished));
    shard.join().unwrap();
}

#[test]
fn an_earlier_deadline_moves_the_alarm_and_a_later_one_wakes_nobody() {
    let (ends, ended) = channel();
    let body = |mut context: ShardContext| async move {
        let start = now();
        context.ring.alarm(start + Span::secs(3600));
        context.ring.alarm(start + Span::millis(40));
        context.wait(Some(start + Span::millis(10))).await?;
        assert!(
            now() - start < Span::secs(5),
            "the alarm was moved to the front"
        );
        context.wait(Some(start + Span::millis(80))).await?;
        assert!(
            now() >= start + Span::millis(80),
            "an earlier alarm ends no later wait"
        );
        Ok(())
    };
    let shard = spawn_shard("alarms", None, body, stop_at_once(ends)).unwrap();
    assert!(matches!(receive(&ended), End::Finished));
    shard.join().unwrap();
}

#[test]
fn many_wakes_before_the_shard_looks_cost_one_system_call() {
    let (said, heard) = channel();
    let (ends, _ended) = channel();
    let body = move |mut context: ShardContext| {
        let said = said.clone();
        async move {
            said.send(()).unwrap();
            context.wait(None).await?;
            // Busy: whatever is rung now needs no system call.
            std::thread::sleep(Duration::from_millis(100));
            context.wait(None).await?;
            Ok(())
        }
    };
    let shard = spawn_shard("coalesces", None, body, stop_at_once(ends)).unwrap();
    receive(&heard);
    std::thread::sleep(Duration::from_millis(50));
    let wake = shard.wake();
    wake.wake();
    std::thread::sleep(Duration::from_millis(30));
    (0..10_000).for_each(|_| wake.wake());
    shard.join().unwrap();
    assert_eq!(wake.rung(), 1);
}

#[test]
fn no_wake_is_lost_between_a_look_and_a_sleep() {
    lose_no_wake(false);
}

/// The executor once parked with a runnable loop when it was preempted at the wrong moment.
#[test]
fn no_wake_is_lost_while_tasks_live_beside_the_loop() {
    lose_no_wake(true);
}

fn lose_no_wake(beside: bool) {
    const ROUNDS: usize = 20_000;
    let seen = Arc::new(AtomicUsize::new(0));
    let (wanted, given) = channel::<usize>();
    let given = Arc::new(std::sync::Mutex::new(given));
    let (ends, ended) = channel();
    let count = Arc::clone(&seen);
    let body = move |mut context: ShardContext| {
        let (count, given) = (Arc::clone(&count), Arc::clone(&given));
        async move {
            let _task = if beside {
                Some(context.spawn(std::future::pending())?)
            } else {
                None
            };
            while count.load(Ordering::Relaxed) < ROUNDS {
                context.wait(None).await?;
                let got = given.lock().unwrap().try_iter().count();
                count.fetch_add(got, Ordering::Release);
            }
            Ok(())
        }
    };
    let shard = spawn_shard("loses-none", None, body, stop_at_once(ends)).unwrap();
    let wake = shard.wake();
    for round in 0..ROUNDS {
        wanted.send(round).unwrap();
        wake.wake();
        if round % 16 == 0 {
            let started = Instant::now();
            while seen.load(Ordering::Acquire) <= round {
                assert!(started.elapsed() < WAIT, "wake-up {round} was lost");
                std::hint::spin_loop();
            }
        }
    }
    assert!(matches!(receive(&ended), End::Finished));
    shard.join().unwrap();
}

#[test]
fn a_panic_of_the_loop_reaches_the_supervisor_and_the_loop_runs_again() {
    let runs = Arc::new(AtomicUsize::new(0));
    let (ends, ended) = channel();
    let count = Arc::clone(&runs);
    let body = move |mut context: ShardContext| {
        let count = Arc::clone(&count);
        async move {
            context.ring.timeout(Token(1), now() + Span::secs(3600));
            context.wait(Some(now() + Span::millis(1))).await?;
            match count.fetch_add(1, Ordering::Relaxed) {
                0 => panic!("first run"),
                1 => Err(Error::new(Kind::Retry, "run", "twice", "on purpose")),
                _ => Ok(()),
            }
        }
    };
    let supervise = move |end: End| {
        let next = if matches!(end, End::Finished) {
            Next::Stop
        } else {
            Next::Restart
        };
        ends.send(end).unwrap();
        next
    };
    let shard = spawn_shard("panics", None, body, supervise).unwrap();
    assert!(matches!(receive(&ended), End::Panicked(text) if text == "first run"));
    assert!(matches!(receive(&ended), End::Failed(error) if error.kind() == Kind::Retry));
    assert!(matches!(receive(&ended), End::Finished));
    shard.join().unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), 3);
}

#[test]
fn a_panic_of_a_task_ends_the_loop_with_its_words() {
    let (ends, ended) = channel();
    let body = |mut context: ShardContext| async move {
        let _task = context.spawn(async { panic!("in a task") })?;
        loop {
            context.wait(None).await?;
        }
    };
    let shard = spawn_shard("task-panics", None, body, stop_at_once(ends)).unwrap();
    let End::Failed(error) = receive(&ended) else {
        panic!("the loop should fail")
    };
    assert!(error.to_string().contains("in a task"), "{error}");
    shard.join().unwrap();
}

#[test]
fn a_busy_loop_lets_the_other_tasks_run() {
    let (said, heard) = channel();
    let (ends, _ended) = channel();
    let body = move |mut context: ShardContext| {
        let said = said.clone();
        async move {
            let done = Rc::new(std::cell::Cell::new(false));
            let flag = Rc::clone(&done);
            let _task = context.spawn(async move { flag.set(true) })?;
            let started = Instant::now();
            while !done.get() && started.elapsed() < WAIT {
                context.wait(Some(Time(0))).await?;
            }
            said.send(done.get()).unwrap();
            Ok(())
        }
    };
    let shard = spawn_shard("busy", None, body, stop_at_once(ends)).unwrap();
    assert!(receive(&heard), "the task never ran");
    shard.join().unwrap();
}

#[test]
fn an_idle_shard_uses_no_processor() {
    let (said, heard) = channel();
    let (ends, _ended) = channel();
    let body = move |mut context: ShardContext| {
        let said = said.clone();
        async move {
            let used = |before: libc::timespec| {
                let after = thread_time();
                let seconds = after.tv_sec - before.tv_sec;
                Span((seconds * 1_000_000_000 + after.tv_nsec - before.tv_nsec) as u64)
            };
            context.wait(Some(now() + Span::millis(50))).await?;
            let before = thread_time();
            context.wait(Some(now() + Span::millis(500))).await?;
            said.send(used(before)).unwrap();
            Ok(())
        }
    };
    let shard = spawn_shard("idle", None, body, stop_at_once(ends)).unwrap();
    let used = receive(&heard);
    shard.join().unwrap();
    assert!(
        used < Span::millis(5),
        "{used:?} of processor time in half a second of sleep"
    );
}

fn thread_time() -> libc::timespec {
    let mut moment = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a timespec of ours.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut moment) };
    moment
}
