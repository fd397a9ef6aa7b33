//! Lists of 5,000 pods, as JSON over HTTPS.

use std::time::Instant;

use bytes::Bytes;
use http::Method;

use crate::cluster::Machine;
use crate::load::Durations;
use crate::parts::stored;
use crate::report::Report;
use crate::{Extent, Failure};

const PODS: usize = 5000;

pub async fn measure(machine: &Machine, extent: Extent, report: &mut Report) -> Result<(), Failure> {
    let cluster = machine.ready().await?;
    let _node = stored::prepare(&cluster).await?;
    stored::store(&cluster, 0..PODS).await?;
    let http = cluster.http()?;
    let (mut taken, mut bytes) = (Vec::new(), 0);
    for _ in 0..extent.pick(20, 5) {
        let path = format!("/api/v1/namespaces/{}/pods", stored::NAME);
        let start = Instant::now();
        let body = http.fetch(Method::GET, &path, &[], Bytes::new()).await;
        taken.push(start.elapsed());
        bytes = body.map_err(|status| status.to_string())?.len();
    }
    let taken = Durations::new(taken);
    let note = format!(
        "JSON, {:.1} MB ({} bytes a pod); median of {}, worst {:.0} ms",
        bytes as f64 / 1e6,
        bytes / PODS,
        taken.len(),
        taken.percentile_ms(100)
    );
    report.add("list of 5,000 pods", taken.median_ms(), "ms", note);
    Ok(())
}
