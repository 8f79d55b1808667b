/* SPDX-License-Identifier: Apache-2.0
 *
 * Whose packet is it, and may it go on?
 */
#ifndef SALLYPORT_DECIDE_H
#define SALLYPORT_DECIDE_H

#include "maps.h"
#include "parse.h"
#include "rewrite.h"

#define STUN_HEADER 20
#define STUN_COOKIE 0x2112a442

/* The part of the header that is looked at. */
struct stun_header {
	__u8 type[2];
	__be16 length;
	__be32 cookie;
};

/* Tries to win a race for a token before the packet is taken for one too many. */
#define ADMIT_TRIES 4

/* Media ports of the address, or NULL. */
static __always_inline struct sallyport_media_value *media_of(__u32 zone, const __u8 *address)
{
	struct sallyport_media_key key = { .zone = zone };

	__builtin_memcpy(key.address, address, 16);
	return bpf_map_lookup_elem(&media, &key);
}

/* Sources that nobody can have: XDP comes before the kernel's own checks. */
static __always_inline int bad_source(const struct sallyport_flow_key *key)
{
	const __u8 *remote = key->remote_address;
	int v4 = is_mapped(key->local_address);
	__u64 high, low;

	if (!key->remote_port[0] && !key->remote_port[1])
		return 1;
	if (v4 != is_mapped(remote))
		return 1;
	__builtin_memcpy(&high, remote, 8);
	__builtin_memcpy(&low, remote + 8, 8);
	if (v4 && (remote[12] == 0 || remote[12] == 127 || remote[12] >= 224))
		return 1;
	if (!v4 && (remote[0] == 0xff || (!high && bpf_be64_to_cpu(low) <= 1)))
		return 1;
	return media_of(SALLYPORT_OUTSIDE, remote) || media_of(SALLYPORT_INSIDE, remote);
}

/* RFC 8489 section 5, and RFC 7983: the whole datagram is one message. */
static __always_inline int is_stun(struct xdp_md *ctx, const struct datagram *packet)
{
	struct stun_header stun;
	__u16 length;

	if (packet->payload_len < STUN_HEADER || !take(ctx, packet->payload, &stun))
		return 0;
	length = bpf_ntohs(stun.length);
	return stun.type[0] < 4 && stun.cookie == bpf_htonl(STUN_COOKIE) && !(length & 3) &&
	       length + STUN_HEADER == packet->payload_len;
}

/* Takes a token out of a bucket, which holds when all its tokens will be back: each takes `interval` to. */
static __always_inline int take_token(const struct sallyport_source *source, __u64 interval, __u64 most)
{
	struct sallyport_bucket *bucket;
	__u64 now = bpf_ktime_get_ns();

	if (interval > most)
		return 0;
	bucket = bpf_map_lookup_elem(&buckets, source);
	if (!bucket) {
		struct sallyport_bucket fresh = { .full_at_ns = now + interval };

		if (!bpf_map_update_elem(&buckets, source, &fresh, BPF_NOEXIST))
			return 1;
		bucket = bpf_map_lookup_elem(&buckets, source);
		if (!bucket)
			return 0;
	}
#pragma unroll
	for (int i = 0; i < ADMIT_TRIES; i++) {
		__u64 old = *(volatile __u64 *)&bucket->full_at_ns;
		__u64 next = (old > now ? old : now) + interval;

		if (next - now > most)
			return 0;
		if (__sync_val_compare_and_swap(&bucket->full_at_ns, old, next) == old)
			return 1;
	}
	return 0;
}

/* A token of the source, then one of all sources together, whose bucket has the address that no source has: sources are
 * easily made up. */
static __always_inline int admit(const __u8 *address)
{
	__u32 zero = 0;
	const struct sallyport_settings *set = bpf_map_lookup_elem(&settings, &zero);
	struct sallyport_source source;

	if (!set)
		return 0;
	__builtin_memcpy(source.address, address, 16);
	if (!is_mapped(address))
		__builtin_memset(source.address + 8, 0, 8);
	if (!take_token(&source, set->punt_interval_ns, set->punt_burst * set->punt_interval_ns))
		return 0;
	__builtin_memset(&source, 0, sizeof(source));
	return take_token(&source, set->total_interval_ns, (__u64)set->total_burst * set->total_interval_ns);
}

/* What the helper says where the driver knows no metadata. */
#define ENOTSUPP 524

/* To the AF_XDP socket of this queue, with `meta` in front of the frame. */
static __always_inline int redirect(struct xdp_md *ctx, __u32 base, const struct sallyport_meta *meta, __u32 counter)
{
	__u32 queue = ctx->rx_queue_index;
	struct sallyport_meta *front;
	void *data;
	int action, error;

	if (queue >= SALLYPORT_QUEUES_MAX)
		return leave(SALLYPORT_DROP_NO_SOCKET, XDP_DROP);
	error = bpf_xdp_adjust_meta(ctx, -(int)sizeof(*meta));
	if (error == -ENOTSUPP) {
		action = bpf_redirect_map(&xsks, base + queue, XDP_DROP);
		return leave(action == XDP_REDIRECT ? SALLYPORT_REDIRECT_BARE : SALLYPORT_DROP_NO_SOCKET, action);
	}
	if (error)
		return leave(SALLYPORT_DROP_NO_META, XDP_DROP);
	front = (void *)(long)ctx->data_meta;
	data = (void *)(long)ctx->data;
	if ((void *)(front + 1) > data)
		return leave(SALLYPORT_DROP_NO_META, XDP_DROP);
	/* Metadata of the driver lies between. Kept from the compiler, which would make one != of both: not allowed. */
	asm volatile("" : "+r"(front));
	if ((void *)(front + 1) < data)
		return leave(SALLYPORT_DROP_NO_META, XDP_DROP);
	*front = *meta;
	action = bpf_redirect_map(&xsks, base + queue, XDP_DROP);
	return leave(action == XDP_REDIRECT ? counter : SALLYPORT_DROP_NO_SOCKET, action);
}

/* Where a frame came in: values, since a pointer kept on the stack can cost CAP_PERFMON. */
struct place {
	__u32 zone;
	__u32 xsk_base;
	__u32 browsers; /* whether it came to their port */
	__u32 frame_max; /* octets that a frame of its sockets takes */
};

/* A packet of a flow: counted, and named in the metadata. */
static __always_inline void note(struct sallyport_flow_value *flow, const struct datagram *packet, struct sallyport_meta *meta)
{
	__sync_fetch_and_add(&flow->packets, 1);
	__sync_fetch_and_add(&flow->bytes, packet->payload_len);
	meta->kind = SALLYPORT_META_FLOW;
	meta->direction = flow->direction;
	meta->epoch = flow->epoch;
	flow->last_seen_ns = bpf_ktime_get_ns();
}

/* The flow of the same address whatever its port, or NULL: of telephony that may send from elsewhere than it says. */
static __always_inline struct sallyport_flow_value *any_port(const struct datagram *packet)
{
	struct sallyport_flow_key key = packet->key;

	key.remote_port[0] = 0;
	key.remote_port[1] = 0;
	return bpf_map_lookup_elem(&flows, &key);
}

/* A datagram to a media port. */
static __always_inline int decide_media(struct xdp_md *ctx, struct place in, const struct datagram *packet)
{
	struct sallyport_meta meta = { .magic = SALLYPORT_META_MAGIC };
	struct sallyport_flow_value *flow = bpf_map_lookup_elem(&flows, &packet->key);

	/* Port 0 is nobody's: in the map it stands for any. */
	if (flow && (packet->key.remote_port[0] || packet->key.remote_port[1])) {
		note(flow, packet, &meta);
		if (flow->action == SALLYPORT_ACTION_REWRITE) {
			int action = rewrite(ctx, flow, packet);

			if (action >= 0)
				return action;
		}
		return redirect(ctx, in.xsk_base, &meta, SALLYPORT_REDIRECT_FLOW);
	}
	if (bad_source(&packet->key))
		return leave(SALLYPORT_DROP_SOURCE, XDP_DROP);
	if (in.zone == SALLYPORT_INSIDE && !in.browsers) {
		flow = any_port(packet);
		if (flow) {
			note(flow, packet, &meta);
			return redirect(ctx, in.xsk_base, &meta, SALLYPORT_REDIRECT_FLOW);
		}
	}
	if (!in.browsers || !is_stun(ctx, packet))
		return leave(SALLYPORT_DROP_UNKNOWN_FLOW, XDP_DROP);
	if (!admit(packet->key.remote_address))
		return leave(SALLYPORT_DROP_RATE_LIMITED, XDP_DROP);
	meta.kind = SALLYPORT_META_PUNT;
	return redirect(ctx, in.xsk_base, &meta, SALLYPORT_PUNT_STUN);
}

static __always_inline int decide(struct xdp_md *ctx, struct place in)
{
	/* Not data_end - data: that subtraction wants CAP_PERFMON. */
	__u32 length = bpf_xdp_get_buff_len(ctx);
	struct datagram packet = {};
	enum parsed parsed = parse(ctx, length, &packet);
	struct sallyport_media_value *ports;

	if (parsed == PARSED_NOT_IP)
		return leave(SALLYPORT_PASS_NOT_IP, XDP_PASS);
	if (parsed == PARSED_NOT_UDP)
		return leave(SALLYPORT_PASS_NOT_UDP, XDP_PASS);
	packet.key.zone = in.zone;
	ports = media_of(in.zone, packet.key.local_address);
	if (!ports)
		return leave(SALLYPORT_PASS_NOT_MEDIA, XDP_PASS);
	if (parsed == PARSED_MALFORMED)
		return leave(SALLYPORT_DROP_MALFORMED, XDP_DROP);
	/* Inside, SIP may share the address, and its long requests come in fragments. */
	if (parsed == PARSED_LATER_FRAGMENT && in.zone == SALLYPORT_INSIDE)
		return leave(SALLYPORT_PASS_FRAGMENT, XDP_PASS);
	if (parsed == PARSED_LATER_FRAGMENT)
		return leave(SALLYPORT_DROP_FRAGMENT, XDP_DROP);
	in.browsers = ports->browsers && packet.local_port == ports->browsers;
	if (!in.browsers && (packet.local_port < ports->port_min || packet.local_port > ports->port_max))
		return leave(SALLYPORT_PASS_NOT_MEDIA, XDP_PASS);
	if (parsed == PARSED_FIRST_FRAGMENT)
		return leave(SALLYPORT_DROP_FRAGMENT, XDP_DROP);
	if (length > in.frame_max)
		return leave(SALLYPORT_DROP_TOO_LONG, XDP_DROP);
	return decide_media(ctx, in, &packet);
}

#endif
