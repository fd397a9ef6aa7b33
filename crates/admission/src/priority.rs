//! Priority: a pod's class becomes a number.

use async_trait::async_trait;
use machinery::Status;
use resources::value::{Access, Fill};
use serde_json::{Value, json};

use crate::lookup::Lookup;
use crate::{Attributes, Operation, Plugin};

const GROUP: &str = "scheduling.k8s.io";
const NODE_CRITICAL: i64 = 2_000_001_000;
const CLUSTER_CRITICAL: i64 = 2_000_000_000;

pub struct Priority {
    pub lookup: Lookup,
}

#[async_trait]
impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        let writes = matches!(attributes.operation, Operation::Create | Operation::Update);
        writes && (attributes.is("", "pods") || attributes.is(GROUP, "priorityclasses"))
    }

    async fn mutate(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        if !attributes.is("", "pods") {
            return Ok(());
        }
        if attributes.operation == Operation::Update {
            keep(attributes);
            return Ok(());
        }
        let wanted = attributes.new_object().text("/spec/priorityClassName").to_owned();
        let class = self.class(attributes, &wanted).await?;
        apply(attributes, &class)
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let class = attributes.new_object();
        if !attributes.is(GROUP, "priorityclasses") || !class.flag("/globalDefault") {
            return Ok(());
        }
        let own = class.text("/metadata/name");
        let classes = self.lookup.list(GROUP, "priorityclasses", "").await?;
        let other = classes.iter().find(|c| c.flag("/globalDefault") && c.text("/metadata/name") != own);
        match other {
            None => Ok(()),
            Some(other) => {
                let name = other.text("/metadata/name");
                let detail =
                    format!("PriorityClass {name} is already marked as default. Only one default can exist");
                Err(attributes.forbidden(&detail))
            }
        }
    }
}

impl Priority {
    /// The class that a pod names, or the default one; null when there is neither.
    async fn class(&self, attributes: &Attributes<'_>, name: &str) -> Result<Value, Status> {
        if name.is_empty() {
            let classes = self.lookup.list(GROUP, "priorityclasses", "").await?;
            let defaults = classes.into_iter().filter(|class| class.flag("/globalDefault"));
            return Ok(defaults.min_by_key(|class| class.int("/value")).unwrap_or_default());
        }
        if let Some(class) = self.lookup.find(GROUP, "priorityclasses", "", name).await? {
            return Ok(class);
        }
        let value = match name {
            "system-node-critical" => NODE_CRITICAL,
            "system-cluster-critical" => CLUSTER_CRITICAL,
            name => return Err(attributes.forbidden(&format!("no PriorityClass with name {name} was found"))),
        };
        Ok(json!({"metadata": {"name": name}, "value": value}))
    }
}

/// An update that does not speak of priority leaves it.
fn keep(attributes: &mut Attributes<'_>) {
    let old = attributes.old_object().at("/spec").clone();
    if let Some(pod) = attributes.object.as_deref_mut() {
        let spec = pod.child("spec");
        for field in ["priority", "preemptionPolicy"] {
            if !spec.has(&format!("/{field}")) {
                spec.copy_from(&old, field);
            }
        }
    }
}

fn apply(attributes: &mut Attributes<'_>, class: &Value) -> Result<(), Status> {
    let value = class.int("/value").unwrap_or(0);
    let policy = match class.text("/preemptionPolicy") {
        "" => "PreemptLowerPriority",
        policy => policy,
    };
    let spec = attributes.new_object().at("/spec");
    if let Some(given) = spec.int("/priority").filter(|given| *given != value) {
        return Err(attributes.forbidden(&format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
        )));
    }
    let given = spec.text("/preemptionPolicy");
    if !given.is_empty() && given != policy {
        return Err(attributes.forbidden(&format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
        )));
    }
    if let Some(pod) = attributes.object.as_deref_mut() {
        let spec = pod.child("spec");
        let name = class.text("/metadata/name");
        if !name.is_empty() {
            spec.set("priorityClassName", name);
        }
        spec.set("priority", value);
        spec.set("preemptionPolicy", policy);
    }
    Ok(())
}
