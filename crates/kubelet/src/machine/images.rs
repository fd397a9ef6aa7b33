//! Getting images: policy, waiting reasons and back-off with upstream's messages.

use std::time::Duration;

use jiff::Timestamp;

use super::Machine;
use super::event::{Effect, ImageFailure, ImageRef, Pulled};
use super::slot::{Phase, Slot, Waiting};
use super::time::{after, go_millis};

/// How long `ErrImagePull` stands before `ImagePullBackOff` takes its place, so that both can be seen.
const ERROR_SHOWN: Duration = Duration::from_secs(2);

/// `spec.containers[].imagePullPolicy`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

fn policy(slot: &Slot) -> PullPolicy {
    match slot.member.container.image_pull_policy.as_deref() {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        _ => PullPolicy::IfNotPresent,
    }
}

impl Machine {
    /// The first step of a start.
    pub(super) fn ask_for_image(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let (container, image) = (slot.name().to_owned(), slot.image().to_owned());
        slot.retry_at = None;
        slot.volume_image = None;
        if policy(slot) == PullPolicy::Always {
            return self.pull(&container, image);
        }
        slot.phase = Phase::FindingImage;
        self.emit(Effect::FindImage { container, image });
    }

    fn pull(&mut self, container: &str, image: String) {
        let Some(slot) = self.slot_mut(container) else { return };
        slot.phase = Phase::Pulling;
        self.slot_event(container, false, "Pulling", &format!("Pulling image {image:?}"));
        self.emit(Effect::PullImage { container: container.to_owned(), image });
    }

    pub(super) fn absorb_found(
        &mut self,
        container: &str,
        image: &str,
        found: Result<Option<ImageRef>, ImageFailure>,
        now: Timestamp,
    ) {
        let Some(slot) = self.slot_mut(container) else { return };
        if slot.phase != Phase::FindingImage || slot.image() != image {
            return self.drop_image_answer(container, image);
        }
        let never = policy(slot) == PullPolicy::Never;
        match found {
            Ok(Some(found)) => {
                slot.phase = Phase::ImageReady(found);
                let message = format!(
                    "Container image {image:?} already present on machine and can be accessed by the pod"
                );
                self.slot_event(container, false, "Pulled", &message);
            }
            Ok(None) if never => {
                let message = format!("Container image {image:?} is not present with pull policy of Never");
                self.slot_event(container, true, "ErrImageNeverPull", &message);
                self.image_failed(container, Waiting::new("ErrImageNeverPull", message), now);
            }
            Ok(None) => self.pull(container, image.to_owned()),
            Err(failure) => self.absorb_image_failure(container, image, failure, now),
        }
    }

    pub(super) fn absorb_pulled(
        &mut self,
        container: &str,
        image: &str,
        pulled: Result<Pulled, ImageFailure>,
        now: Timestamp,
    ) {
        let Some(slot) = self.slot_mut(container) else { return };
        if slot.phase != Phase::Pulling || slot.image() != image {
            return self.drop_image_answer(container, image);
        }
        match pulled {
            Ok(pulled) => {
                slot.phase = Phase::ImageReady(pulled.image);
                slot.pull = Default::default();
                let message = format!(
                    "Successfully pulled image {image:?} in {} ({} including waiting). Image size: {} bytes.",
                    go_millis(pulled.took),
                    go_millis(pulled.took_with_waiting),
                    pulled.size_bytes
                );
                self.slot_event(container, false, "Pulled", &message);
            }
            Err(failure) => self.absorb_image_failure(container, image, failure, now),
        }
    }

    /// The answer is about an image that is not wanted any more: begin again with the present one.
    fn drop_image_answer(&mut self, container: &str, image: &str) {
        let Some(slot) = self.slot_mut(container) else { return };
        if slot.image() != image && matches!(slot.phase, Phase::FindingImage | Phase::Pulling) {
            slot.phase = Phase::Idle;
        }
    }

    pub(super) fn absorb_image_failure(
        &mut self,
        container: &str,
        image: &str,
        failure: ImageFailure,
        now: Timestamp,
    ) {
        let waiting = match failure {
            ImageFailure::InvalidName(cause) => {
                let message = format!(
                    "Failed to apply default image tag {image:?}: couldn't parse image name {image:?}: {cause}"
                );
                self.slot_event(container, true, "InspectFailed", &message);
                Waiting::new("InvalidImageName", message)
            }
            ImageFailure::Failed(cause) => {
                self.slot_event(
                    container,
                    true,
                    "Failed",
                    &format!("Failed to pull image {image:?}: {cause}"),
                );
                Waiting::new("ErrImagePull", cause)
            }
        };
        self.image_failed(container, waiting, now);
    }

    fn image_failed(&mut self, container: &str, waiting: Waiting, now: Timestamp) {
        self.slot_event(container, true, "Failed", &format!("Error: {}", waiting.reason));
        let Some(slot) = self.slot_mut(container) else { return };
        slot.phase = Phase::Idle;
        slot.pull.advance(now, now);
        let pulled = waiting.reason == "ErrImagePull";
        slot.retry_at = Some(after(now, if pulled { ERROR_SHOWN } else { slot.pull.delay() }));
        slot.waiting = Some(waiting);
    }

    /// Whether the slot still waits for its image; turns `ErrImagePull` into `ImagePullBackOff` when it was shown
    /// long enough.
    pub(super) fn backs_off_from_image(&mut self, index: usize, now: Timestamp) -> bool {
        let slot = &mut self.slots[index];
        let Some(waiting) = slot.waiting.as_ref().filter(|waiting| waiting.reason == "ErrImagePull") else {
            return false;
        };
        if slot.retry_at.is_some_and(|at| at > now) {
            return true;
        }
        let image = slot.volume_image.clone().unwrap_or_else(|| slot.image().to_owned());
        let text = format!("Back-off pulling image {image:?}");
        let message = format!("{text}: ErrImagePull: {}", waiting.message);
        let rest = slot.pull.delay().saturating_sub(ERROR_SHOWN);
        slot.waiting = Some(Waiting::new("ImagePullBackOff", message));
        slot.retry_at = Some(after(now, rest));
        let name = slot.name().to_owned();
        self.slot_event(&name, false, "BackOff", &text);
        self.slot_event(&name, true, "Failed", "Error: ImagePullBackOff");
        true
    }
}
