//! Typed views of objects that were asked for lately.
//!
//! A view is several times as large as the bytes it is made of, and the readers of one object come together: right
//! after a change. So views are not kept with their objects, of which there may be tens of thousands, but here, a
//! fixed number of them. Each object has one slot; a newer object that has the same slot takes it.

use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How many views are kept.
const SLOTS: usize = 512;

type View = Arc<dyn Any + Send + Sync>;

static VIEWS: [Mutex<Option<(u64, View)>>; SLOTS] = [const { Mutex::new(None) }; SLOTS];
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A number that no other object of this process has.
pub fn identity() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The view of the object `identity`, if it is kept and of this type.
pub fn find<T: Send + Sync + 'static>(identity: u64) -> Option<Arc<T>> {
    let slot = slot(identity).lock().unwrap_or_else(PoisonError::into_inner);
    let (_, view) = slot.as_ref().filter(|(owner, _)| *owner == identity)?;
    view.clone().downcast().ok()
}

/// Keeps a view in place of whatever has its slot.
pub fn keep(identity: u64, view: View) {
    let former = slot(identity).lock().unwrap_or_else(PoisonError::into_inner).replace((identity, view));
    // Only now, when others may have the slot: to free a view takes a while.
    drop(former);
}

/// Forgets the view of an object that is gone.
pub fn forget(identity: u64) {
    let mut slot = slot(identity).lock().unwrap_or_else(PoisonError::into_inner);
    let former = slot.take_if(|(owner, _)| *owner == identity);
    drop(slot);
    drop(former);
}

fn slot(identity: u64) -> &'static Mutex<Option<(u64, View)>> {
    &VIEWS[identity as usize % SLOTS]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_object_takes_the_slot_and_types_are_told_apart() {
        let first = identity();
        let second = first + SLOTS as u64;
        keep(first, Arc::new(1_u8));
        assert_eq!(find::<u8>(first).as_deref(), Some(&1));
        assert_eq!(find::<u16>(first), None);
        keep(second, Arc::new(2_u8));
        assert_eq!(find::<u8>(first), None);
        forget(first);
        assert_eq!(find::<u8>(second).as_deref(), Some(&2));
        forget(second);
        assert_eq!(find::<u8>(second), None);
    }
}
