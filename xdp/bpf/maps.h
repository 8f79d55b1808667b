/* SPDX-License-Identifier: Apache-2.0
 *
 * The maps. The loader sizes `flows` and `tallies`; all are pinned by name.
 */
#ifndef SALLYPORT_MAPS_H
#define SALLYPORT_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "sallyport.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, struct sallyport_flow_key);
	__type(value, struct sallyport_flow_value);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct sallyport_tally);
} tallies SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SALLYPORT_MEDIA_MAX);
	__type(key, struct sallyport_media_key);
	__type(value, struct sallyport_media_value);
} media SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SALLYPORT_INTERFACES_MAX);
	__type(key, __u32);
	__type(value, struct sallyport_interface_value);
} interfaces SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, SALLYPORT_XSKS_MAX);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SALLYPORT_BUCKETS_MAX);
	__type(key, struct sallyport_source);
	__type(value, struct sallyport_bucket);
} buckets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SALLYPORT_COUNTER_MAX);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sallyport_settings);
} settings SEC(".maps");

/* Each name of the contract is a map above. */
#define X(upper, lower, text) _Static_assert(sizeof(lower) > 0, "map " #lower);
SALLYPORT_MAPS(X)
#undef X

/* Counts a packet, and says what becomes of it. */
static __always_inline int leave(__u32 counter, int action)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &counter);

	if (value)
		*value += 1;
	return action;
}

#endif
