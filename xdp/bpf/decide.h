/* SPDX-License-Identifier: Apache-2.0
 *
 * Whose packet is it, and may it go on?
 */
#ifndef SALLYPORT_DECIDE_H
#define SALLYPORT_DECIDE_H

#include "maps.h"
#include "parse.h"

#define STUN_HEADER 20
#define STUN_COOKIE 0x2112a442

static __always_inline int leave(__u32 counter, int action)
{
	count(counter);
	return action;
}

/* Media ports of the address, or NULL. */
static __always_inline struct sallyport_media_value *media_of(__u32 zone, const __u8 *address)
{
	struct sallyport_media_key key = { .zone = zone };

	__builtin_memcpy(key.address, address, 16);
	return bpf_map_lookup_elem(&media, &key);
}

static __always_inline int is_stun(struct xdp_md *ctx, const struct datagram *in)
{
	__u8 *head;
	__u32 cookie;

	if (in->payload_len < STUN_HEADER)
		return 0;
	/* Ethernet, tag, IPv4 with options and UDP end below 128; the mask says so to the verifier. */
	head = at(ctx, in->payload & 0x7f, 8);
	if (!head)
		return 0;
	__builtin_memcpy(&cookie, head + 4, 4);
	return head[0] < 4 && cookie == bpf_htonl(STUN_COOKIE);
}

/* Takes a token of the source. Racing CPUs may let one more pass; the rate holds over time. */
static __always_inline int admit(const __u8 *address)
{
	__u32 zero = 0;
	struct sallyport_settings *set = bpf_map_lookup_elem(&settings, &zero);
	__u64 now = bpf_ktime_get_ns();
	struct sallyport_bucket *bucket;

	if (!set || !set->punt_refill_ns)
		return 0;
	bucket = bpf_map_lookup_elem(&buckets, address);
	if (!bucket) {
		struct sallyport_bucket fresh = { .refilled_ns = now, .tokens = set->punt_burst };

		if (!fresh.tokens)
			return 0;
		fresh.tokens -= 1;
		return bpf_map_update_elem(&buckets, address, &fresh, BPF_ANY) == 0;
	}
	if (now - bucket->refilled_ns >= set->punt_refill_ns) {
		__u64 back = bucket->tokens + (now - bucket->refilled_ns) / set->punt_refill_ns;

		bucket->tokens = back < set->punt_burst ? back : set->punt_burst;
		bucket->refilled_ns = now;
	}
	if (!bucket->tokens)
		return 0;
	bucket->tokens -= 1;
	return 1;
}

/* To the AF_XDP socket of this queue, with `meta` in front of the frame. */
static __always_inline int redirect(struct xdp_md *ctx, __u32 base, const struct sallyport_meta *meta, __u32 counter)
{
	__u32 place = base + ctx->rx_queue_index;
	struct sallyport_meta *front;
	void *data;

	if (ctx->rx_queue_index >= SALLYPORT_QUEUES_MAX || !bpf_map_lookup_elem(&sockets, &place))
		return leave(SALLYPORT_DROP_NO_SOCKET, XDP_DROP);
	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(*meta)))
		return leave(SALLYPORT_DROP_NO_ROOM, XDP_DROP);
	front = (void *)(long)ctx->data_meta;
	data = (void *)(long)ctx->data;
	if ((void *)(front + 1) > data)
		return leave(SALLYPORT_DROP_NO_ROOM, XDP_DROP);
	*front = *meta;
	count(counter);
	return bpf_redirect_map(&sockets, place, XDP_DROP);
}

static __always_inline int decide(struct xdp_md *ctx, struct sallyport_interface_value *in)
{
	struct datagram packet = {};
	enum parsed parsed = parse(ctx, &packet);
	struct sallyport_media_value *ports;
	struct sallyport_flow_value *flow;
	struct sallyport_meta meta = { .magic = SALLYPORT_META_MAGIC };

	if (parsed == PARSED_NOT_UDP || parsed == PARSED_UNREADABLE)
		return leave(SALLYPORT_PASS_NOT_UDP, XDP_PASS);
	ports = media_of(in->zone, packet.key.local_address);
	if (!ports)
		return leave(SALLYPORT_PASS_NOT_MEDIA, XDP_PASS);
	if (parsed == PARSED_FRAGMENT)
		return leave(SALLYPORT_DROP_FRAGMENT, XDP_DROP);
	if (parsed == PARSED_MALFORMED)
		return leave(SALLYPORT_DROP_MALFORMED, XDP_DROP);
	if (packet.local_port < ports->port_min || packet.local_port > ports->port_max)
		return leave(SALLYPORT_PASS_NOT_MEDIA, XDP_PASS);

	packet.key.zone = in->zone;
	flow = bpf_map_lookup_elem(&flows, &packet.key);
	if (flow) {
		__sync_fetch_and_add(&flow->packets, 1);
		__sync_fetch_and_add(&flow->bytes, packet.payload_len);
		flow->last_seen_ns = bpf_ktime_get_ns();
		meta.kind = SALLYPORT_META_FLOW;
		meta.direction = flow->direction;
		meta.epoch = flow->epoch;
		return redirect(ctx, in->socket_base, &meta, SALLYPORT_REDIRECT_FLOW);
	}
	if (in->zone != SALLYPORT_OUTSIDE || !is_stun(ctx, &packet))
		return leave(SALLYPORT_DROP_UNKNOWN_FLOW, XDP_DROP);
	if (!admit(packet.key.remote_address))
		return leave(SALLYPORT_DROP_RATE_LIMITED, XDP_DROP);
	meta.kind = SALLYPORT_META_PUNT;
	return redirect(ctx, in->socket_base, &meta, SALLYPORT_REDIRECT_PUNT);
}

#endif
