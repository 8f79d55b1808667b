//! How often one may try to sign in: token buckets by client and by number, in a table that strangers cannot outgrow.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Parts of a sign-in that an attempt costs: one that fails, one that succeeds, one with a token.
const FAILED: f64 = 5.0;
const PROVEN: f64 = 0.1;
/// Buckets at once; whoever finds no place shares one with all others like that.
const PLACES: usize = 8192;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Client(IpAddr),
    Number(String),
    /// Whoever finds no place.
    Rest,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Sign-ins left; below zero after failed ones.
    left: f64,
    at: Instant,
}

/// Sign-ins by what became of them, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Signed in.
    pub accepted: u64,
    /// Wrong token, number or password.
    pub denied: u64,
    /// Too many.
    pub limited: u64,
    /// Not for want of credentials: the SIP server is away, there is no room.
    pub failed: u64,
}

/// Who tried how often.
#[derive(Debug)]
pub struct Limits {
    client: f64,
    number: f64,
    table: Mutex<HashMap<Key, Bucket>>,
    accepted: AtomicU64,
    denied: AtomicU64,
    limited: AtomicU64,
    failed: AtomicU64,
}

impl Limits {
    /// So many sign-ins a minute of one client, and without a token with one number; as many at once.
    pub fn new(client: u32, number: u32) -> Self {
        Self {
            client: client.into(),
            number: number.into(),
            table: Mutex::default(),
            accepted: AtomicU64::new(0),
            denied: AtomicU64::new(0),
            limited: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    /// A client tries.
    ///
    /// # Errors
    /// How long to wait, a second at least.
    pub fn try_client(&self, client: IpAddr, now: Instant) -> Result<(), Duration> {
        self.take(Key::Client(client), now)
    }

    /// Somebody tries with a number and without a token.
    ///
    /// # Errors
    /// How long to wait, a second at least.
    pub fn try_number(&self, number: &str, now: Instant) -> Result<(), Duration> {
        self.take(Key::Number(number.to_owned()), now)
    }

    /// It has failed: wrong token, number or password.
    pub fn failed(&self, client: IpAddr, number: Option<&str>, now: Instant) {
        self.denied.fetch_add(1, Ordering::Relaxed);
        self.give(Key::Client(client), 1.0 - FAILED, now);
        if let Some(number) = number {
            self.give(Key::Number(number.to_owned()), 1.0 - FAILED, now);
        }
    }

    /// It has succeeded, maybe with a token.
    pub fn succeeded(&self, client: IpAddr, proven: bool, now: Instant) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        if proven {
            self.give(Key::Client(client), 1.0 - PROVEN, now);
        }
    }

    /// Nothing came of it, and nobody was to blame.
    pub fn unsettled(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Since the start.
    pub fn counts(&self) -> Counts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            accepted: read(&self.accepted),
            denied: read(&self.denied),
            limited: read(&self.limited),
            failed: read(&self.failed),
        }
    }

    fn capacity(&self, key: &Key) -> f64 {
        match key {
            Key::Client(_) | Key::Rest => self.client,
            Key::Number(_) => self.number,
        }
    }

    fn take(&self, key: Key, now: Instant) -> Result<(), Duration> {
        let capacity = self.capacity(&key);
        let left = self.with(key, now, |bucket| {
            let left = bucket.left;
            if left >= 1.0 {
                bucket.left -= 1.0;
            }
            left
        });
        if left >= 1.0 {
            return Ok(());
        }
        self.limited.fetch_add(1, Ordering::Relaxed);
        Err(Duration::from_secs_f64(((1.0 - left) * 60.0 / capacity).max(1.0)))
    }

    fn give(&self, key: Key, parts: f64, now: Instant) {
        let capacity = self.capacity(&key);
        self.with(key, now, |bucket| bucket.left = (bucket.left + parts).clamp(-capacity, capacity));
    }

    fn with<T>(&self, key: Key, now: Instant, act: impl FnOnce(&mut Bucket) -> T) -> T {
        // Whoever panicked while it held the lock left whole buckets.
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |key: &Key, bucket: &Bucket| self.refilled(key, bucket, now) >= self.capacity(key);
        if table.len() >= PLACES && !table.contains_key(&key) {
            table.retain(|key, bucket| !full(key, bucket));
        }
        let key = if table.len() >= PLACES && !table.contains_key(&key) { Key::Rest } else { key };
        let fresh = Bucket { left: self.capacity(&key), at: now };
        let left = table.get(&key).map(|bucket| self.refilled(&key, bucket, now));
        let bucket = table.entry(key).or_insert(fresh);
        bucket.left = left.unwrap_or(bucket.left);
        bucket.at = now;
        act(bucket)
    }

    fn refilled(&self, key: &Key, bucket: &Bucket, now: Instant) -> f64 {
        let capacity = self.capacity(key);
        let since = now.saturating_duration_since(bucket.at).as_secs_f64();
        (bucket.left + since * capacity / 60.0).min(capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(last: u32) -> IpAddr {
        std::net::Ipv4Addr::from(0x0a00_0000 + last).into()
    }

    #[test]
    fn so_many_at_once_and_then_as_time_goes() {
        let (limits, now) = (Limits::new(3, 2), Instant::now());
        for _ in 0..3 {
            assert!(limits.try_client(client(1), now).is_ok());
        }
        let wait = limits.try_client(client(1), now).unwrap_err();
        assert_eq!(wait.as_secs(), 20, "a minute has three");
        assert!(limits.try_client(client(2), now).is_ok(), "others are not concerned");
        assert!(limits.try_client(client(1), now + Duration::from_secs(19)).is_err());
        assert!(limits.try_client(client(1), now + Duration::from_secs(20)).is_ok());
        for good in [true, true, false] {
            assert_eq!(limits.try_number("1", now).is_ok(), good);
        }
        assert_eq!(limits.counts().limited, 3);
    }

    #[test]
    fn failed_ones_cost_more_and_proven_ones_hardly_anything() {
        let (limits, now) = (Limits::new(10, 10), Instant::now());
        for good in [true, true, false] {
            assert_eq!(limits.try_client(client(1), now).is_ok(), good);
            if good {
                limits.failed(client(1), Some("1"), now);
            }
        }
        for _ in 0..50 {
            assert!(limits.try_client(client(2), now).is_ok());
            limits.succeeded(client(2), true, now);
        }
        assert_eq!((limits.counts().accepted, limits.counts().denied), (50, 2));
        // However often it fails, it may try again after two minutes at the most.
        for _ in 0..100 {
            limits.failed(client(1), None, now);
        }
        assert!(limits.try_client(client(1), now + Duration::from_secs(120)).is_ok());
    }

    #[test]
    fn the_table_has_so_many_places_and_the_rest_shares_one() {
        let (limits, now) = (Limits::new(2, 2), Instant::now());
        let places = u32::try_from(PLACES).unwrap();
        for number in 0..places {
            assert!(limits.try_client(client(number), now).is_ok());
        }
        let granted = (0..10).filter(|more| limits.try_client(client(places + more), now).is_ok()).count();
        assert_eq!(granted, 2);
        assert!(limits.table.lock().unwrap().len() <= PLACES + 1);
        // Buckets that are full again make room.
        assert!(limits.try_client(client(places), now + Duration::from_secs(61)).is_ok());
        assert!(limits.table.lock().unwrap().len() <= 2);
    }
}
