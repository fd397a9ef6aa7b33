//! The tables. A line at the margin names a role (`NAMESPACE/NAME` in a namespace); indented lines are its rules:
//! `VERBS GROUPS RESOURCES [NAMES]` or `VERBS URLS`. Lists have commas; `-` is the core group; `read` is get, list
//! and watch; `write` is create, delete, deletecollection, patch and update; `events` alone is the right to record
//! events.

pub const CLUSTER_ROLES: &str = "
cluster-admin
  * * *
  * *
system:discovery
  get /api,/api/*,/apis,/apis/*,/healthz,/livez,/openapi,/openapi/*,/readyz,/version,/version/
system:public-info-viewer
  get /healthz,/livez,/readyz,/version,/version/
system:monitoring
  get /healthz,/healthz/*,/livez,/livez/*,/metrics,/metrics/slis,/readyz,/readyz/*
system:service-account-issuer-discovery
  get /.well-known/openid-configuration,/openid/v1/jwks
system:basic-user
  create authorization.k8s.io selfsubjectaccessreviews,selfsubjectrulesreviews
  create authentication.k8s.io selfsubjectreviews
system:auth-delegator
  create authentication.k8s.io tokenreviews
  create authorization.k8s.io subjectaccessreviews
system:aggregate-to-admin
  create authorization.k8s.io localsubjectaccessreviews
  read,write rbac.authorization.k8s.io rolebindings,roles
system:aggregate-to-edit
  read - pods/attach,pods/exec,pods/portforward,pods/proxy,secrets,services/proxy
  impersonate - serviceaccounts
  write - pods,pods/attach,pods/exec,pods/portforward,pods/proxy
  create - pods/eviction
  write - configmaps,events,persistentvolumeclaims,replicationcontrollers,replicationcontrollers/scale,secrets,serviceaccounts,services,services/proxy
  create - serviceaccounts/token
  write apps daemonsets,deployments,deployments/rollback,deployments/scale,replicasets,replicasets/scale,statefulsets,statefulsets/scale
  write autoscaling horizontalpodautoscalers
  write batch cronjobs,jobs
  write extensions daemonsets,deployments,deployments/rollback,deployments/scale,ingresses,networkpolicies,replicasets,replicasets/scale,replicationcontrollers/scale
  write policy poddisruptionbudgets
  write networking.k8s.io ingresses,networkpolicies
  read,write coordination.k8s.io leases
  write resource.k8s.io resourceclaims,resourceclaimtemplates
system:aggregate-to-view
  read - configmaps,endpoints,persistentvolumeclaims,persistentvolumeclaims/status,pods,replicationcontrollers,replicationcontrollers/scale,serviceaccounts,services,services/status
  read - bindings,events,limitranges,namespaces/status,pods/log,pods/status,replicationcontrollers/status,resourcequotas,resourcequotas/status
  read - namespaces
  read discovery.k8s.io endpointslices
  read apps controllerrevisions,daemonsets,daemonsets/status,deployments,deployments/scale,deployments/status,replicasets,replicasets/scale,replicasets/status,statefulsets,statefulsets/scale,statefulsets/status
  read autoscaling horizontalpodautoscalers,horizontalpodautoscalers/status
  read batch cronjobs,cronjobs/status,jobs,jobs/status
  read extensions daemonsets,daemonsets/status,deployments,deployments/scale,deployments/status,ingresses,ingresses/status,networkpolicies,replicasets,replicasets/scale,replicasets/status,replicationcontrollers/scale
  read policy poddisruptionbudgets,poddisruptionbudgets/status
  read networking.k8s.io ingresses,ingresses/status,networkpolicies
  read resource.k8s.io resourceclaims,resourceclaims/status,resourceclaimtemplates
system:aggregated-metrics-reader
  read metrics.k8s.io nodes,pods
system:certificates.k8s.io:certificatesigningrequests:nodeclient
  create certificates.k8s.io certificatesigningrequests/nodeclient
system:certificates.k8s.io:certificatesigningrequests:selfnodeclient
  create certificates.k8s.io certificatesigningrequests/selfnodeclient
system:certificates.k8s.io:kube-apiserver-client-approver
  approve certificates.k8s.io signers kubernetes.io/kube-apiserver-client
system:certificates.k8s.io:kube-apiserver-client-kubelet-approver
  approve certificates.k8s.io signers kubernetes.io/kube-apiserver-client-kubelet
system:certificates.k8s.io:kubelet-serving-approver
  approve certificates.k8s.io signers kubernetes.io/kubelet-serving
system:certificates.k8s.io:legacy-unknown-approver
  approve certificates.k8s.io signers kubernetes.io/legacy-unknown
system:heapster
  read - events,namespaces,nodes,pods
  read extensions deployments
system:kube-aggregator
  read - endpoints,services
system:kube-controller-manager
  events
  create coordination.k8s.io leases
  get,update coordination.k8s.io leases kube-controller-manager
  create - secrets,serviceaccounts
  delete - secrets
  get - configmaps,namespaces,secrets,serviceaccounts
  update - secrets,serviceaccounts
  create authentication.k8s.io tokenreviews
  create authorization.k8s.io subjectaccessreviews
  list,watch * *
  create - serviceaccounts/token
system:kube-dns
  list,watch - endpoints,services
system:kube-scheduler
  events
  create coordination.k8s.io leases
  get,list,update,watch coordination.k8s.io leases kube-scheduler
  create coordination.k8s.io leasecandidates
  read,delete,deletecollection,patch,update coordination.k8s.io leasecandidates
  read - nodes
  delete,get,list,watch - pods
  create - bindings,pods/binding
  patch,update - pods/status
  read - replicationcontrollers,services
  read apps,extensions replicasets
  read apps statefulsets
  read policy poddisruptionbudgets
  read - persistentvolumeclaims,persistentvolumes
  create authentication.k8s.io tokenreviews
  create authorization.k8s.io subjectaccessreviews
  read storage.k8s.io csinodes
  read - namespaces
  read storage.k8s.io csidrivers
  read storage.k8s.io csistoragecapacities
  read storage.k8s.io volumeattachments
  read resource.k8s.io deviceclasses
  read,patch,update resource.k8s.io resourceclaims
  patch,update resource.k8s.io resourceclaims/status
  patch,update resource.k8s.io resourceclaims/binding
  update - pods/finalizers
  read resource.k8s.io resourceslices
system:kubelet-api-admin
  read - nodes
  proxy - nodes
  * - nodes/configz,nodes/healthz,nodes/log,nodes/metrics,nodes/pods,nodes/proxy,nodes/stats
system:node
  create authentication.k8s.io tokenreviews
  create authorization.k8s.io localsubjectaccessreviews,subjectaccessreviews
  read - services
  create,get,list,watch - nodes
  patch,update - nodes/status
  patch,update - nodes
  create,patch,update -,events.k8s.io events
  read - pods
  create,delete - pods
  patch,update - pods/status
  create - pods/eviction
  read - configmaps,secrets
  get - persistentvolumeclaims,persistentvolumes
  get - endpoints
  create,get,list,watch certificates.k8s.io certificatesigningrequests
  create,delete,get,patch,update coordination.k8s.io leases
  get storage.k8s.io volumeattachments
  create - serviceaccounts/token
  get,patch,update - persistentvolumeclaims/status
  read storage.k8s.io csidrivers
  create,delete,get,patch,update storage.k8s.io csinodes
  read node.k8s.io runtimeclasses
  get resource.k8s.io resourceclaims
  read,create,delete,deletecollection,patch,update resource.k8s.io resourceslices
  get - serviceaccounts
system:node-bootstrapper
  create,get,list,watch certificates.k8s.io certificatesigningrequests
system:node-problem-detector
  get - nodes
  patch - nodes/status
  events
system:node-proxier
  list,watch - endpoints,services
  read - nodes
  events
  list,watch discovery.k8s.io endpointslices
  list,watch networking.k8s.io servicecidrs
system:persistent-volume-provisioner
  create,delete,get,list,watch - persistentvolumes
  get,list,update,watch - persistentvolumeclaims
  read storage.k8s.io storageclasses
  watch - events
  events
system:volume-scheduler
  read,patch,update - persistentvolumes
  read storage.k8s.io storageclasses
  read,patch,update - persistentvolumeclaims
";

/// Each is bound to the service account of its last part in `kube-system`.
pub const CONTROLLERS: &str = "
system:controller:attachdetach-controller
  list,watch - persistentvolumeclaims,persistentvolumes
  read - nodes
  patch,update - nodes/status
  list,watch - pods
  events
  create,delete,get,list,watch storage.k8s.io volumeattachments
  read storage.k8s.io csidrivers
  read storage.k8s.io csinodes
system:controller:certificate-controller
  delete,get,list,watch certificates.k8s.io certificatesigningrequests
  update certificates.k8s.io certificatesigningrequests/approval,certificatesigningrequests/status
  approve certificates.k8s.io signers kubernetes.io/kube-apiserver-client-kubelet
  sign certificates.k8s.io signers kubernetes.io/kube-apiserver-client,kubernetes.io/kube-apiserver-client-kubelet,kubernetes.io/kubelet-serving,kubernetes.io/legacy-unknown
  create authorization.k8s.io subjectaccessreviews
  events
system:controller:clusterrole-aggregation-controller
  escalate,get,list,patch,update,watch rbac.authorization.k8s.io clusterroles
system:controller:cronjob-controller
  get,list,update,watch batch cronjobs
  read,create,delete,patch,update batch jobs
  update batch cronjobs/status
  update batch cronjobs/finalizers
  delete,list,watch - pods
  events
system:controller:daemon-set-controller
  read apps,extensions daemonsets
  update apps,extensions daemonsets/status
  update apps,extensions daemonsets/finalizers
  list,watch - nodes
  create,delete,list,patch,watch - pods
  create - pods/binding
  read,create,delete,patch,update apps controllerrevisions
  events
system:controller:deployment-controller
  get,list,update,watch apps,extensions deployments
  update apps,extensions deployments/status
  update apps,extensions deployments/finalizers
  read,create,delete,patch,update apps,extensions replicasets
  get,list,update,watch - pods
  events
system:controller:device-taint-eviction-controller
  delete,get,list,watch - pods
  patch,update - pods/status
  read resource.k8s.io resourceclaims
  read resource.k8s.io resourceslices
  read resource.k8s.io deviceclasses
  events
system:controller:disruption-controller
  read apps,extensions deployments
  read apps,extensions replicasets
  read - replicationcontrollers
  read policy poddisruptionbudgets
  read apps statefulsets
  update policy poddisruptionbudgets/status
  patch,update - pods/status
  get * */scale
  events
system:controller:endpoint-controller
  read - pods,services
  create,delete,get,list,update,watch - endpoints
  create - endpoints/restricted
  events
system:controller:endpointslice-controller
  read - nodes,pods,services
  update - services/finalizers
  create,delete,get,list,update,watch discovery.k8s.io endpointslices
  events
system:controller:endpointslicemirroring-controller
  read - endpoints,services
  update - services/finalizers
  update - endpoints/finalizers
  create,delete,get,list,update,watch discovery.k8s.io endpointslices
  events
system:controller:ephemeral-volume-controller
  read - pods
  update - pods/finalizers
  create,get,list,watch - persistentvolumeclaims
  events
system:controller:expand-controller
  read,patch,update - persistentvolumes
  patch,update - persistentvolumeclaims/status
  read - persistentvolumeclaims
  events
system:controller:generic-garbage-collector
  read,delete,patch,update * *
  events
system:controller:horizontal-pod-autoscaler
  read autoscaling horizontalpodautoscalers
  update autoscaling horizontalpodautoscalers/status
  get,update * */scale
  list,watch - pods
  list,watch metrics.k8s.io pods
  read custom.metrics.k8s.io *
  read external.metrics.k8s.io *
  events
system:controller:job-controller
  read,patch,update batch jobs
  update batch jobs/status
  update batch jobs/finalizers
  create,delete,list,patch,watch - pods
  events
system:controller:legacy-service-account-token-cleaner
  get - configmaps kube-apiserver-legacy-service-account-token-tracking
  delete,patch - secrets
system:controller:namespace-controller
  delete,get,list,watch - namespaces
  update - namespaces/finalize,namespaces/status
  read,delete,deletecollection * *
system:controller:node-controller
  read,delete,patch,update - nodes
  patch,update - nodes/status
  patch,update - pods/status
  delete,get,list,watch - pods
  events
system:controller:persistent-volume-binder
  create,delete,get,list,update,watch - persistentvolumes
  update - persistentvolumes/status
  get,list,update,watch - persistentvolumeclaims
  update - persistentvolumeclaims/status
  create,delete,get,list,watch - pods
  read storage.k8s.io storageclasses
  list,watch - nodes
  events
  watch - events
system:controller:pod-garbage-collector
  delete,list,watch - pods
  read - nodes
  patch - pods/status
system:controller:pv-protection-controller
  get,list,update,watch - persistentvolumes
  events
system:controller:pvc-protection-controller
  get,list,update,watch - persistentvolumeclaims
  update - persistentvolumeclaims/status
  read - pods
  events
system:controller:replicaset-controller
  get,list,update,watch apps,extensions replicasets
  update apps,extensions replicasets/status
  update apps,extensions replicasets/finalizers
  create,delete,list,patch,watch - pods
  events
system:controller:replication-controller
  get,list,update,watch - replicationcontrollers
  update - replicationcontrollers/status
  update - replicationcontrollers/finalizers
  create,delete,list,patch,watch - pods
  events
system:controller:resource-claim-controller
  read - pods
  update - pods/finalizers
  create,delete,get,list,watch resource.k8s.io resourceclaims
  patch,update resource.k8s.io resourceclaims,resourceclaims/status
  patch,update resource.k8s.io resourceclaims/binding
  patch,update - pods/status
  events
system:controller:resourcequota-controller
  list,watch * *
  update - resourcequotas/status
  events
system:controller:root-ca-cert-publisher
  create,update - configmaps
  events
system:controller:route-controller
  list,watch - nodes
  patch - nodes/status
  events
system:controller:selinux-warning-controller
  events
  read - persistentvolumes
  read - persistentvolumeclaims
  read - pods
  read storage.k8s.io csidrivers
system:controller:service-account-controller
  create - serviceaccounts
  events
system:controller:service-cidrs-controller
  read,patch,update networking.k8s.io servicecidrs
  patch,update networking.k8s.io servicecidrs/finalizers
  patch,update networking.k8s.io servicecidrs/status
  read networking.k8s.io ipaddresses
  events
system:controller:service-controller
  read - services
  patch,update - services/status
  list,watch - nodes
  events
system:controller:statefulset-controller
  list,watch - pods
  read apps statefulsets
  update apps statefulsets/status
  update apps statefulsets/finalizers
  create,delete,get,patch,update - pods
  read,create,delete,patch,update apps controllerrevisions
  create,get,list,watch - persistentvolumeclaims
  delete,update - persistentvolumeclaims
  update - pods/finalizers
  events
system:controller:ttl-after-finished-controller
  delete,get,list,watch batch jobs
  events
system:controller:ttl-controller
  list,patch,update,watch - nodes
  events
system:controller:validatingadmissionpolicy-status-controller
  read admissionregistration.k8s.io validatingadmissionpolicies
  get,patch,update admissionregistration.k8s.io validatingadmissionpolicies/status
  events
system:controller:volumeattributesclass-protection-controller
  read - persistentvolumeclaims
  read - persistentvolumes
  get,list,update,watch storage.k8s.io volumeattributesclasses
  events
";

pub const ROLES: &str = "
kube-public/system:controller:bootstrap-signer
  read - configmaps
  update - configmaps cluster-info
  events
kube-system/extension-apiserver-authentication-reader
  read - configmaps extension-apiserver-authentication
kube-system/system::leader-locking-kube-controller-manager
  create,get,list,update,watch coordination.k8s.io leases
  create,get,list,update,watch coordination.k8s.io leasecandidates
kube-system/system::leader-locking-kube-scheduler
  create,get,list,update,watch coordination.k8s.io leases
  create,get,list,update,watch coordination.k8s.io leasecandidates
kube-system/system:controller:bootstrap-signer
  read - secrets
kube-system/system:controller:cloud-provider
  create,get,list,watch - configmaps
kube-system/system:controller:token-cleaner
  delete,get,list,watch - secrets
  events
";

/// `ROLE SUBJECT…`; the binding has the role's name.
pub const CLUSTER_ROLE_BINDINGS: &str = "
cluster-admin Group=system:masters
system:monitoring Group=system:monitoring
system:discovery Group=system:authenticated
system:basic-user Group=system:authenticated
system:public-info-viewer Group=system:authenticated Group=system:unauthenticated
system:node-proxier User=system:kube-proxy
system:kube-controller-manager User=system:kube-controller-manager
system:kube-dns ServiceAccount=kube-system/kube-dns
system:kube-scheduler User=system:kube-scheduler
system:volume-scheduler User=system:kube-scheduler
system:node
system:service-account-issuer-discovery Group=system:serviceaccounts
";

/// `NAMESPACE/BINDING ROLE SUBJECT…`.
pub const ROLE_BINDINGS: &str = "
kube-public/system:controller:bootstrap-signer system:controller:bootstrap-signer ServiceAccount=kube-system/bootstrap-signer
kube-system/system::extension-apiserver-authentication-reader extension-apiserver-authentication-reader User=system:kube-controller-manager User=system:kube-scheduler
kube-system/system::leader-locking-kube-controller-manager system::leader-locking-kube-controller-manager User=system:kube-controller-manager ServiceAccount=kube-system/kube-controller-manager ServiceAccount=kube-system/leader-election-controller
kube-system/system::leader-locking-kube-scheduler system::leader-locking-kube-scheduler User=system:kube-scheduler ServiceAccount=kube-system/kube-scheduler
kube-system/system:controller:bootstrap-signer system:controller:bootstrap-signer ServiceAccount=kube-system/bootstrap-signer
kube-system/system:controller:cloud-provider system:controller:cloud-provider ServiceAccount=kube-system/cloud-provider
kube-system/system:controller:token-cleaner system:controller:token-cleaner ServiceAccount=kube-system/token-cleaner
";
