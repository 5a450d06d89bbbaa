//! One clock for the deadlines of all calls.
//!
//! Nearly every call ends long before its deadline. A timer of the runtime for each would cost it two system calls and a
//! turn of the loop: the driver is roused whenever a timer becomes its earliest one. Here a call leaves its deadline in a
//! table, and one task sleeps until the earliest; it looks anew when it wakes up, and ends when nothing is left to wait for.
//!
//! Owns when a call is over. Must never end one early, and has at most one timer of the runtime.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::sync::Notify;

/// Cheap to clone; all clones are one clock.
#[derive(Clone, Default)]
pub(super) struct Clock(Rc<State>);

/// A deadline, and which of those at one moment.
type Place = (Instant, u64);

#[derive(Default)]
struct State {
    waiting: RefCell<BTreeMap<Place, Waker>>,
    next: Cell<u64>,
    /// Until when the task sleeps, while there is one.
    alarm: Cell<Option<Instant>>,
    /// Has the task look anew.
    look: Notify,
}

impl Clock {
    /// Waits until that moment; for ever without one.
    pub(super) fn reach(&self, deadline: Option<Instant>) -> Reach {
        let number = self.0.next.get();
        self.0.next.set(number + 1);
        Reach { clock: self.clone(), place: deadline.map(|at| (at, number)), waits: false }
    }

    /// Nothing is expected for a while: without anything to wait for, the timer goes.
    pub(super) fn rest(&self) {
        if self.0.alarm.get().is_some() {
            self.0.look.notify_one();
        }
    }

    fn wait(&self, place: Place, waker: &Waker) {
        self.0.waiting.borrow_mut().insert(place, waker.clone());
        match self.0.alarm.get() {
            Some(alarm) if alarm <= place.0 => {}
            Some(_) => self.0.look.notify_one(),
            None => {
                self.0.alarm.set(Some(place.0));
                actix::spawn(keep(Rc::clone(&self.0)));
            }
        }
    }
}

/// Sleeps from one deadline to the next.
async fn keep(state: Rc<State>) {
    loop {
        let earliest = state.waiting.borrow().keys().next().map(|(at, _)| *at);
        state.alarm.set(earliest);
        let Some(at) = earliest else { return };
        tokio::select! {
            () = tokio::time::sleep_until(at.into()) => {}
            () = state.look.notified() => {}
        }
        let now = Instant::now();
        let mut waiting = state.waiting.borrow_mut();
        while let Some(entry) = waiting.first_entry().filter(|entry| entry.key().0 <= now) {
            entry.remove().wake();
        }
    }
}

/// Resolves at its moment.
pub(super) struct Reach {
    clock: Clock,
    place: Option<Place>,
    waits: bool,
}

impl Future for Reach {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(place) = self.place else { return Poll::Pending };
        if Instant::now() >= place.0 {
            return Poll::Ready(());
        }
        self.waits = true;
        self.clock.wait(place, cx.waker());
        Poll::Pending
    }
}

impl Drop for Reach {
    fn drop(&mut self) {
        if let Some(place) = self.place.filter(|_| self.waits) {
            self.clock.0.waiting.borrow_mut().remove(&place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[actix::test]
    async fn deadlines_are_reached_in_their_order_whatever_the_order_they_came_in() {
        let clock = Clock::default();
        let begin = Instant::now();
        let reached = Rc::new(RefCell::new(Vec::new()));
        let waits = [40, 10, 25].map(|ms| {
            let (wait, reached) = (clock.reach(Some(begin + Duration::from_millis(ms))), Rc::clone(&reached));
            async move {
                wait.await;
                assert!(begin.elapsed() >= Duration::from_millis(ms), "{ms} ms came after {:?}", begin.elapsed());
                reached.borrow_mut().push(ms);
            }
        });
        futures_util::future::join_all(waits).await;
        assert_eq!(*reached.borrow(), [10, 25, 40]);
    }

    #[actix::test]
    async fn a_clock_at_rest_has_no_timer() {
        let clock = Clock::default();
        let far = Some(Instant::now() + Duration::from_secs(3600));
        let given_up = tokio::time::timeout(Duration::from_millis(5), clock.reach(far)).await;
        assert!(given_up.is_err());
        assert!(clock.0.waiting.borrow().is_empty(), "who gave up waits no more");
        assert!(clock.0.alarm.get().is_some());
        clock.rest();
        while clock.0.alarm.get().is_some() {
            tokio::task::yield_now().await;
        }
        assert_eq!(Rc::strong_count(&clock.0), 1, "the task has ended");
    }

    #[actix::test]
    async fn a_call_without_a_deadline_waits_for_ever() {
        let clock = Clock::default();
        let waiting = tokio::time::timeout(Duration::from_millis(20), clock.reach(None)).await;
        assert!(waiting.is_err());
        assert!(clock.0.alarm.get().is_none());
    }
}
