{{- define "hubbub.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- /* What selects pods: the name and the release, and a part, "node" or "store". */}}
{{- define "hubbub.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "hubbub.join" -}}
{{- $all := list }}
{{- range $i := until (int .Values.stores) }}
{{- $all = append $all (printf "%s-stores-%d.%s-stores:7422" $.Release.Name $i $.Release.Name) }}
{{- end }}
{{- join "," $all }}
{{- end }}

{{- /* A pod of a part: all but what a store has in addition. */}}
{{- define "hubbub.pod" -}}
metadata:
  labels:
    {{- include "hubbub.selector" . | nindent 4 }}
  annotations:
    checksum/settings: {{ .root.Values.settings | toJson | sha256sum }}
    {{- with .root.Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  enableServiceLinks: false
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: {{ add .root.Values.drain.delaySeconds .root.Values.drain.timeoutSeconds 10 }}
  {{- with .root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    seccompProfile: {type: RuntimeDefault}
  {{- with .root.Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .root.Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if eq .part "store" }}
  affinity:
    podAntiAffinity: # two stores on one machine are lost together
      requiredDuringSchedulingIgnoredDuringExecution:
        - topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "hubbub.selector" . | nindent 14 }}
  {{- else }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "hubbub.selector" . | nindent 10 }}
  {{- end }}
  containers:
    - name: hubbub
      image: "{{ .root.Values.image.repository }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}"
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      args:
        - serve
        - --config=/etc/hubbub/hubbub.yaml
        - --node-name=$(POD_NAME)
        {{- if .root.Values.stores }}
        - --join={{ include "hubbub.join" .root }}
        {{- end }}
        {{- if eq .part "store" }}
        - --data-dir=/data
        - --cluster-listen=:7422
        - --cluster-advertise=$(POD_NAME).{{ .root.Release.Name }}-stores
        {{- end }}
      env:
        - name: POD_NAME
          valueFrom: {fieldRef: {fieldPath: metadata.name}}
        - {name: HUBBUB_LISTEN, value: ":8080"}
        - {name: HUBBUB_ADMIN_LISTEN, value: "0.0.0.0:9000"}
        - {name: HUBBUB_SHUTDOWN_TIMEOUT, value: {{ printf "%ds" (int .root.Values.drain.timeoutSeconds) | quote }}}
      {{- with .root.Values.secret }}
      envFrom:
        - secretRef: {name: {{ . }}}
      {{- end }}
      ports:
        - {name: http, containerPort: 8080}
        - {name: admin, containerPort: 9000}
        {{- if eq .part "store" }}
        - {name: nodes, containerPort: 7422}
        - {name: stores, containerPort: 7423}
        {{- end }}
      startupProbe:
        httpGet: {path: /healthz, port: http}
        periodSeconds: 2
        failureThreshold: 30
      readinessProbe:
        httpGet: {path: /readyz, port: http}
        periodSeconds: 2
      livenessProbe: # answers while a store waits for the others, too
        httpGet: {path: /healthz, port: http}
        periodSeconds: 10
        failureThreshold: 6
      lifecycle:
        preStop: # until then the Service sends clients here; afterwards SIGTERM, and they are told where to come back
          sleep: {seconds: {{ .root.Values.drain.delaySeconds }}}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      resources:
        {{- toYaml .root.Values.resources | nindent 8 }}
      volumeMounts:
        - {name: settings, mountPath: /etc/hubbub, readOnly: true}
        {{- if eq .part "store" }}
        - {name: data, mountPath: /data}
        {{- end }}
  volumes:
    - name: settings
      configMap: {name: {{ .root.Release.Name }}}
{{- end }}
