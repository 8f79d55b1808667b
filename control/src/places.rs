//! WebSocket connections of one kind (JSON, SIP): so many at once, and so many of one client.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// In all, and of one client.
pub const ALL: usize = 4096;
pub const OF_CLIENT: usize = 256;

/// Who is in.
#[derive(Debug, Clone, Default)]
pub struct Places(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One that is in; its place is free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    places: Places,
    client: IpAddr,
}

impl Places {
    /// Lets one more connection of a client (an address, of IPv6 a /64) in; `None` where there are enough.
    pub fn enter(&self, client: IpAddr) -> Option<Place> {
        let mut places = self.lock();
        let own = places.get(&client).copied().unwrap_or_default();
        if own >= OF_CLIENT || places.values().sum::<usize>() >= ALL {
            return None;
        }
        places.insert(client, own + 1);
        Some(Place { places: self.clone(), client })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.places.lock();
        if let Some(own) = places.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                places.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_has_so_many_places_and_gives_them_back() {
        let places = Places::default();
        let (one, other) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let mut held: Vec<_> = (0..OF_CLIENT).map(|_| places.enter(one).unwrap()).collect();
        assert!(places.enter(one).is_none() && places.enter(other).is_some());
        held.pop();
        assert!(places.enter(one).is_some());
        held.clear();
        assert!(places.lock().is_empty());
    }

    #[test]
    fn all_clients_together_have_so_many() {
        let places = Places::default();
        let client = |number: usize| IpAddr::from((number as u32).to_be_bytes());
        let held: Vec<_> = (0..ALL).map(|number| places.enter(client(number)).unwrap()).collect();
        assert!(places.enter(client(ALL)).is_none(), "all are taken");
        drop(held);
        assert!(places.enter(client(ALL)).is_some());
    }
}
