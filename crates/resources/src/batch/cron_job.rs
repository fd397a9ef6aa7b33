//! CronJobs.

use jiff::Timestamp;
use machinery::FieldError;
use serde_json::Value;

use super::{cron, job};
use crate::check::Errors;
use crate::core::pod::{defaults, validate};
use crate::table_format::{age, containers, selector};
use crate::value::{Access, Fill};
use crate::{Strategy, row};

/// Jobs get eleven more characters, and a name has 63.
const NAME_MAX: usize = 52;

pub struct CronJobs;

impl Strategy for CronJobs {
    fn default(&self, object: &mut Value) {
        let spec = object.child("spec");
        spec.default_zero("concurrencyPolicy", "Allow");
        spec.default_absent("suspend", false);
        spec.default_absent("successfulJobsHistoryLimit", 3);
        spec.default_absent("failedJobsHistoryLimit", 1);
        let template = spec.child("jobTemplate").child("spec").child("template");
        defaults::spec(template.child("spec"));
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let spec = object.at("/spec");
        match spec.text("/schedule") {
            "" => errors.required("spec.schedule", ""),
            schedule => {
                if schedule.contains("TZ=") {
                    let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
                    errors.invalid("spec.schedule", schedule, detail);
                } else {
                    errors.format("spec.schedule", schedule, cron::check);
                }
            }
        }
        if spec.text("/timeZone").eq_ignore_ascii_case("local") {
            errors.invalid(
                "spec.timeZone",
                spec.at("/timeZone"),
                "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
            );
        }
        errors.required_one_of(
            "spec.concurrencyPolicy",
            spec.text("/concurrencyPolicy"),
            &["Allow", "Forbid", "Replace"],
        );
        for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
            errors.at_least(&format!("spec.{field}"), spec.int(&format!("/{field}")), 0);
        }
        job::spec(&mut errors, "spec.jobTemplate.spec", spec.at("/jobTemplate/spec"));
        validate::template(
            &mut errors,
            "spec.jobTemplate.spec.template",
            spec.at("/jobTemplate/spec/template"),
        );
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        self.validate_create(new)
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        crate::names::dns_subdomain(name)?;
        if name.len() > NAME_MAX {
            return Err(format!("must be no more than {NAME_MAX} characters"));
        }
        Ok(())
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        let template = object.at("/spec/jobTemplate/spec");
        let [names, images] = containers(template.at("/template/spec"));
        let last = match object.pointer("/status/lastScheduleTime").filter(|time| !time.is_null()) {
            None => "<none>".to_owned(),
            last => age(now, last),
        };
        vec![
            row::name(object),
            row::text(object, "/spec/schedule", ""),
            row::text(object, "/spec/timeZone", "<none>"),
            object.flag("/spec/suspend").into(),
            row::count(object, "/status/active"),
            last.into(),
            row::created(now, object),
            names,
            images,
            selector(template.at("/selector")).into(),
        ]
    }
}
