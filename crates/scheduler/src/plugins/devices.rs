//! `DynamicResources`: claims of devices are not allocated by this scheduler, so pods that need them wait.

use crate::plugin::{Context, Plugin, Refusal};

pub fn check(context: Context<'_>) -> Result<(), Refusal> {
    if !context.pod.wish().claims_devices {
        return Ok(());
    }
    let message = "pod has resource claims, and dynamic resource allocation is not implemented".to_owned();
    Err(Refusal { plugin: Plugin::DynamicResources, message })
}
