//! The kinds that extend the API itself: custom resources, aggregated services, webhooks, policies, fairness.

use jiff::Timestamp;
use machinery::FieldError;
use serde_json::{Value, json};

use crate::check::Errors;
use crate::value::{Access, Fill};
use crate::{Context, Strategy, names, row};

pub struct CustomResourceDefinitions;

impl Strategy for CustomResourceDefinitions {
    fn default(&self, object: &mut Value) {
        let spec = object.child("spec");
        spec.child("conversion").default_zero("strategy", "None");
        let chosen = spec.child("names");
        let kind = chosen.text("/kind").to_owned();
        if !kind.is_empty() {
            chosen.default_zero("singular", kind.to_lowercase());
            chosen.default_zero("listKind", format!("{kind}List"));
        }
    }

    fn prepare_create(&self, _context: &Context, object: &mut Value) {
        let stored: Vec<_> = object
            .items("/spec/versions")
            .iter()
            .filter(|version| version.flag("/storage"))
            .map(|version| version.text("/name").to_owned())
            .collect();
        object.set(
            "status",
            json!({"acceptedNames": {"kind": "", "plural": ""}, "conditions": [], "storedVersions": stored}),
        );
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let spec = object.at("/spec");
        let expected = format!("{}.{}", spec.text("/names/plural"), spec.text("/group"));
        if object.text("/metadata/name") != expected {
            errors.invalid(
                "metadata.name",
                object.text("/metadata/name"),
                "must be spec.names.plural+\".\"+spec.group",
            );
        }
        match spec.text("/group") {
            "" => errors.required("spec.group", ""),
            group if !group.contains('.') => {
                errors.invalid("spec.group", group, "should be a domain with at least one dot");
            }
            group => errors.format("spec.group", group, names::dns_subdomain),
        }
        errors.required_one_of("spec.scope", spec.text("/scope"), &["Cluster", "Namespaced"]);
        errors.name("spec.names.plural", spec.text("/names/plural"), names::dns_1035_label);
        errors.name("spec.names.singular", spec.text("/names/singular"), names::dns_1035_label);
        errors.name("spec.names.kind", &spec.text("/names/kind").to_lowercase(), names::dns_1035_label);
        versions(&mut errors, spec);
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        errors.extend(self.validate_create(new));
        for field in ["group", "scope"] {
            let pointer = format!("/spec/{field}");
            errors.immutable(&format!("spec.{field}"), new.at(&pointer), old.at(&pointer));
        }
        for stored in old.items("/status/storedVersions") {
            if !new.items("/spec/versions").iter().any(|version| version.at("/name") == stored) {
                let detail = "must remain in spec.versions as long as it is a stored version";
                errors.invalid("status.storedVersions[0]", stored, detail);
            }
        }
        errors.into_vec()
    }

    fn has_generation(&self) -> bool {
        true
    }
}

fn versions(errors: &mut Errors, spec: &Value) {
    let versions = spec.items("/versions");
    if versions.is_empty() {
        errors.required("spec.versions", "");
    }
    for (index, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{index}]");
        errors.name(&format!("{path}.name"), version.text("/name"), names::dns_1035_label);
        if !version.has("/schema/openAPIV3Schema") {
            errors.required(format!("{path}.schema.openAPIV3Schema"), "schemas are required");
        } else if version.text("/schema/openAPIV3Schema/type") != "object" {
            let path = format!("{path}.schema.openAPIV3Schema.type");
            match version.text("/schema/openAPIV3Schema/type") {
                "" => errors.required(path, "must not be empty at the root"),
                other => errors.invalid(path, other, "must be object at the root"),
            }
        }
    }
    let stored = versions.iter().filter(|version| version.flag("/storage")).count();
    if stored != 1 && !versions.is_empty() {
        errors.invalid("spec.versions", versions, "must have exactly one version marked as storage version");
    }
}

pub struct ApiServices;

impl Strategy for ApiServices {
    fn default(&self, object: &mut Value) {
        if let Some(service) = object.existing("spec").and_then(|spec| spec.existing("service")) {
            service.default_absent("port", 443);
        }
    }

    fn prepare_create(&self, _context: &Context, object: &mut Value) {
        object.set("status", json!({}));
        if !object.has("/spec/service") {
            let condition = json!({"type": "Available", "status": "True", "reason": "Local",
                "message": "Local APIServices are always available"});
            object.child("status").set("conditions", vec![condition]);
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let spec = object.at("/spec");
        let expected = format!("{}.{}", spec.text("/version"), spec.text("/group"));
        if object.text("/metadata/name") != expected {
            let detail = format!("must be `spec.version+\".\"+spec.group`: {expected:?}");
            errors.invalid("metadata.name", object.text("/metadata/name"), detail);
        }
        if spec.has("/service") {
            for field in ["namespace", "name"] {
                if spec.text(&format!("/service/{field}")).is_empty() {
                    errors.required(format!("spec.service.{field}"), "");
                }
            }
        }
        let minimum = spec.int("/groupPriorityMinimum").unwrap_or(0);
        if minimum <= 0 || minimum > 20_000 {
            errors.invalid("spec.groupPriorityMinimum", minimum, "must be positive and less than 20000");
        }
        let priority = spec.int("/versionPriority").unwrap_or(0);
        if priority <= 0 || priority > 1000 {
            errors.invalid("spec.versionPriority", priority, "must be positive and less than 1000");
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        self.validate_create(new)
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        names::path_segment(name)
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        let service = match object.at("/spec/service") {
            Value::Null => "Local".to_owned(),
            service => format!("{}/{}", service.text("/namespace"), service.text("/name")),
        };
        let available = object.items("/status/conditions").iter().find(|c| c.text("/type") == "Available");
        let state = match available {
            Some(condition) if condition.text("/status") == "True" => "True".to_owned(),
            Some(condition) => format!("{} ({})", condition.text("/status"), condition.text("/reason")),
            None => "Unknown".to_owned(),
        };
        vec![row::name(object), service.into(), state.into(), row::created(now, object)]
    }
}

/// Webhook configurations; `mutating` ones have a reinvocation policy.
pub struct Webhooks {
    pub mutating: bool,
}

impl Strategy for Webhooks {
    fn default(&self, object: &mut Value) {
        for webhook in object.each("webhooks") {
            webhook.default_absent("failurePolicy", "Fail");
            webhook.default_absent("matchPolicy", "Equivalent");
            webhook.default_absent("timeoutSeconds", 10);
            for selector in ["namespaceSelector", "objectSelector"] {
                webhook.child(selector);
            }
            if self.mutating {
                webhook.default_absent("reinvocationPolicy", "Never");
            }
            webhook.each("rules").for_each(|rule| rule.default_absent("scope", "*"));
            if let Some(service) =
                webhook.existing("clientConfig").and_then(|config| config.existing("service"))
            {
                service.default_absent("port", 443);
            }
        }
    }

    fn prepare_create(&self, _context: &Context, _object: &mut Value) {}

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        for (index, webhook) in object.items("/webhooks").iter().enumerate() {
            let path = format!("webhooks[{index}]");
            let name = webhook.text("/name");
            if name.split('.').count() < 3 {
                let detail = "should be a domain with at least three segments separated by dots";
                errors.invalid(format!("{path}.name"), name, detail);
            }
            if webhook.items("/sideEffects").is_empty() && webhook.text("/sideEffects").is_empty() {
                errors.required(format!("{path}.sideEffects"), "must specify one of None, NoneOnDryRun");
            } else {
                let path = format!("{path}.sideEffects");
                errors.one_of(&path, webhook.text("/sideEffects"), &["None", "NoneOnDryRun"]);
            }
            if webhook.items("/admissionReviewVersions").is_empty() {
                errors.required(format!("{path}.admissionReviewVersions"), "must specify one of v1, v1beta1");
            }
            errors.one_of(
                &format!("{path}.failurePolicy"),
                webhook.text("/failurePolicy"),
                &["Fail", "Ignore"],
            );
            let seconds = webhook.int("/timeoutSeconds").unwrap_or(10);
            if !(1..=30).contains(&seconds) {
                let detail = "the timeout value must be between 1 and 30 seconds";
                errors.invalid(format!("{path}.timeoutSeconds"), seconds, detail);
            }
            let config = webhook.at("/clientConfig");
            if config.has("/url") == config.has("/service") {
                errors.required(format!("{path}.clientConfig"), "exactly one of url or service is required");
            }
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        self.validate_create(new)
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        vec![row::name(object), row::count(object, "/webhooks"), row::created(now, object)]
    }
}

/// Admission policies; the field that is counted in their row.
pub struct Policies {
    pub counted: &'static str,
}

impl Strategy for Policies {
    fn default(&self, object: &mut Value) {
        let spec = object.child("spec");
        spec.default_absent("failurePolicy", "Fail");
        if let Some(constraints) = spec.existing("matchConstraints") {
            constraints.default_absent("matchPolicy", "Equivalent");
            for selector in ["namespaceSelector", "objectSelector"] {
                constraints.child(selector);
            }
            constraints.each("resourceRules").for_each(|rule| rule.default_absent("scope", "*"));
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        if object.items("/spec/matchConstraints/resourceRules").is_empty() {
            errors.required("spec.matchConstraints", "");
        }
        let expressions = object.items(&format!("/spec/{}", self.counted));
        if expressions.is_empty() && object.items("/spec/auditAnnotations").is_empty() {
            let detail = format!("{} must contain at least one item", self.counted);
            errors.required(format!("spec.{}", self.counted), &detail);
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        self.validate_create(new)
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        let param = object.at("/spec/paramKind");
        let text = match param {
            Value::Null => "<unset>".to_owned(),
            param => format!("{}/{}", param.text("/apiVersion"), param.text("/kind")),
        };
        let count = row::count(object, &format!("/spec/{}", self.counted));
        vec![row::name(object), count, text.into(), row::created(now, object)]
    }
}

pub struct PolicyBindings;

impl Strategy for PolicyBindings {
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        if object.text("/spec/policyName").is_empty() {
            errors.required("spec.policyName", "");
        }
        errors.into_vec()
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        let param = object.at("/spec/paramRef");
        let text = match (param.text("/namespace"), param.text("/name")) {
            _ if param.is_null() => "<unset>".to_owned(),
            ("", name) => name.to_owned(),
            (namespace, name) => format!("{namespace}/{name}"),
        };
        vec![
            row::name(object),
            row::text(object, "/spec/policyName", ""),
            text.into(),
            row::created(now, object),
        ]
    }
}

pub struct FlowSchemas;

impl Strategy for FlowSchemas {
    fn default(&self, object: &mut Value) {
        object.child("spec").default_zero("matchingPrecedence", 1000);
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        let dangling = object.items("/status/conditions").iter().find(|c| c.text("/type") == "Dangling");
        vec![
            row::name(object),
            row::text(object, "/spec/priorityLevelConfiguration/name", "<none>"),
            row::text(object, "/spec/matchingPrecedence", "0"),
            row::text(object, "/spec/distinguisherMethod/type", "<none>"),
            row::created(now, object),
            dangling.map_or("?", |condition| condition.text("/status")).into(),
        ]
    }
}

pub struct PriorityLevels;

impl Strategy for PriorityLevels {
    fn default(&self, object: &mut Value) {
        let spec = object.child("spec");
        if let Some(exempt) = spec.existing("exempt") {
            exempt.default_absent("nominalConcurrencyShares", 0);
            exempt.default_absent("lendablePercent", 0);
        }
        if let Some(limited) = spec.existing("limited") {
            limited.default_absent("nominalConcurrencyShares", 30);
            limited.default_absent("lendablePercent", 0);
            if let Some(queuing) =
                limited.existing("limitResponse").and_then(|response| response.existing("queuing"))
            {
                queuing.default_zero("queues", 64);
                queuing.default_zero("handSize", 8);
                queuing.default_zero("queueLengthLimit", 50);
            }
        }
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        let limited = object.at("/spec/limited");
        let queuing = limited.at("/limitResponse/queuing");
        let shares = if limited.is_null() { object.at("/spec/exempt") } else { limited };
        vec![
            row::name(object),
            row::text(object, "/spec/type", ""),
            row::text(shares, "/nominalConcurrencyShares", "<none>"),
            row::text(queuing, "/queues", "<none>"),
            row::text(queuing, "/handSize", "<none>"),
            row::text(queuing, "/queueLengthLimit", "<none>"),
            row::created(now, object),
        ]
    }
}
