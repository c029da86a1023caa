{{/* What the learner has, in the pod of the roles or in a Job: its GPUs, and a training process on each of several. */}}

{{- define "ratchet.learnsInJob" -}}
{{- if and .Values.roles.enabled .Values.roles.learn.enabled (eq .Values.roles.learn.mode "job") }}true{{ end }}
{{- end }}

{{/* Of several GPUs, unless a setting names another file for accelerate. */}}
{{- define "ratchet.learnsInParallel" -}}
{{- if and .Values.roles.enabled .Values.roles.learn.enabled (gt (int .Values.roles.learn.gpu.count) 1) (not (hasKey .Values.settings "RATCHET_LEARNER__ACCELERATE")) }}true{{ end }}
{{- end }}

{{- define "ratchet.learnResources" -}}
{{- $resources := deepCopy .Values.roles.resources.learn }}
{{- with .Values.roles.learn.gpu }}
{{- if .count }}
{{- $_ := set $resources "limits" (merge (dict .resource .count) ($resources.limits | default dict)) }}
{{- end }}
{{- end }}
{{- toYaml $resources }}
{{- end }}

{{- define "ratchet.learnEnvironment" -}}
{{- if include "ratchet.learnsInParallel" . }}
- name: RATCHET_LEARNER__ACCELERATE
  value: /etc/accelerate/accelerate.yaml
{{- end }}
{{- end }}

{{- define "ratchet.learnMounts" -}}
{{- if include "ratchet.learnsInParallel" . }}
- name: ratchet-accelerate
  mountPath: /etc/accelerate
  readOnly: true
# By it NCCL's processes exchange what does not go from GPU to GPU; a container has 64 MiB without.
- name: ratchet-shared-memory
  mountPath: /dev/shm
{{- end }}
{{- end }}

{{- define "ratchet.learnVolumes" -}}
{{- if include "ratchet.learnsInParallel" . }}
- name: ratchet-accelerate
  configMap:
    name: {{ include "ratchet.name" . }}-accelerate
- name: ratchet-shared-memory
  emptyDir:
    medium: Memory
    sizeLimit: 1Gi
{{- end }}
{{- end }}
