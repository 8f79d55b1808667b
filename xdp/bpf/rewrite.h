/* SPDX-License-Identifier: Apache-2.0
 *
 * Plain media between plain peers: new headers around the same payload, and out again. What is not of the usual shape goes
 * the way of all flows, to the worker, which forwards it or says why not.
 */
#ifndef SALLYPORT_REWRITE_H
#define SALLYPORT_REWRITE_H

#include "maps.h"
#include "parse.h"

#define HOP_LIMIT 64
#define DONT_FRAGMENT 0x4000
/* Octets of payload that IPv4 carries anywhere: 1,280 with its headers (relay/io/src/engine/long.rs). */
#define ANYWHERE (1280 - 28)
#define RTP_FIXED 12
#define RTCP_FIXED 4

/* Packets of an RTCP compound that are walked; of a longer one the worker takes care. */
#define COMPOUND_MAX 8

/* Offsets of a frame without tag, options and extension headers. */
#define IP_AT sizeof(struct ethhdr)
#define UDP_V4_AT (IP_AT + sizeof(struct iphdr))
#define UDP_V6_AT (IP_AT + sizeof(struct ipv6hdr))
#define PAYLOAD_V4_AT (UDP_V4_AT + sizeof(struct udphdr))
#define PAYLOAD_V6_AT (UDP_V6_AT + sizeof(struct udphdr))

/* At both ends of code that IPv4 and IPv6 have a copy of each: made one, its offsets were variables, and such a packet pointer
 * is refused to a loader without CAP_PERFMON (parse.h). */
#define APART(version) asm volatile("" : : "i"(version))

/* RFC 1071: two words of 16 bits out of one of 32. */
static __always_inline __u16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* Octets of an RTP packet's payload (RFC 3550 section 5.1); less than 0 where the packet contradicts itself. */
static __always_inline int rtp_payload(struct xdp_md *ctx, __u32 at, __u32 length, __u8 flags)
{
	__u32 header = RTP_FIXED + (flags & 0x0f) * 4;
	__u8 padding = 0;

	if (flags & 0x10) {
		__be16 words[2];

		if (header + sizeof(words) > length || bpf_xdp_load_bytes(ctx, at + header, words, sizeof(words)))
			return -1;
		header += sizeof(words) + bpf_ntohs(words[1]) * 4;
	}
	if (header > length)
		return -1;
	if (flags & 0x20) {
		if (bpf_xdp_load_bytes(ctx, at + length - 1, &padding, 1) || !padding || padding > length - header)
			return -1;
	}
	return length - header - padding;
}

/* Whether packets of version 2 fill an RTCP compound. */
static __always_inline int rtcp_is_framed(struct xdp_md *ctx, __u32 at, __u32 length)
{
	__u32 begin = 0;

	for (int i = 0; i < COMPOUND_MAX; i++) {
		struct {
			__u8 flags;
			__u8 type;
			__be16 words;
		} head;

		if (begin + sizeof(head) > length || bpf_xdp_load_bytes(ctx, at + begin, &head, sizeof(head)))
			return 0;
		begin += (bpf_ntohs(head.words) + 1) * 4;
		if (head.flags >> 6 != 2)
			return 0;
		if (begin == length)
			return 1;
	}
	return 0;
}

/* The Ethernet header, IPv4 header and UDP header as userspace would write them, but for UDP's checksum, which is changed by
 * what changes (RFC 1624): a packet that was damaged on its way stays so. None stays none. */
static __always_inline int write_v4(struct xdp_md *ctx, const struct sallyport_target *to, __u16 udp_len)
{
	void *data = (void *)(long)*(volatile __u32 *)&ctx->data;
	void *end = (void *)(long)*(volatile __u32 *)&ctx->data_end;
	struct iphdr *ip = data + IP_AT;
	struct udphdr *udp = data + UDP_V4_AT;
	__u16 *words = data + IP_AT;
	__u32 sum = 0;

	if (data + PAYLOAD_V4_AT > end)
		return 0;
	__builtin_memcpy(data, to->macs, sizeof(to->macs));
	ip->tos = to->traffic_class;
	ip->tot_len = bpf_htons(udp_len + sizeof(*ip));
	ip->id = 0;
	ip->frag_off = bpf_htons(DONT_FRAGMENT);
	ip->ttl = HOP_LIMIT;
	ip->check = 0;
	__builtin_memcpy(&ip->saddr, to->source + 12, 4);
	__builtin_memcpy(&ip->daddr, to->destination + 12, 4);
#pragma unroll
	for (int i = 0; i < (int)(sizeof(*ip) / 2); i++)
		sum += words[i];
	ip->check = ~fold(sum);
	__builtin_memcpy(&udp->source, to->source_port, 2);
	__builtin_memcpy(&udp->dest, to->destination_port, 2);
	if (udp->check) {
		__u16 check = ~fold((__u16)~udp->check + (__u32)to->checksum);

		udp->check = check ? check : 0xffff;
	}
	return 1;
}

/* As above; IPv6 always has a checksum (RFC 8200 section 8.1). */
static __always_inline int write_v6(struct xdp_md *ctx, const struct sallyport_target *to, __u16 udp_len)
{
	void *data = (void *)(long)*(volatile __u32 *)&ctx->data;
	void *end = (void *)(long)*(volatile __u32 *)&ctx->data_end;
	struct ipv6hdr *ip = data + IP_AT;
	struct udphdr *udp = data + UDP_V6_AT;
	__u16 check;

	if (data + PAYLOAD_V6_AT > end || !udp->check)
		return 0;
	__builtin_memcpy(data, to->macs, sizeof(to->macs));
	*(__be32 *)ip = bpf_htonl(0x60000000 | (__u32)to->traffic_class << 20);
	ip->payload_len = bpf_htons(udp_len);
	ip->hop_limit = HOP_LIMIT;
	__builtin_memcpy(&ip->saddr, to->source, 16);
	__builtin_memcpy(&ip->daddr, to->destination, 16);
	__builtin_memcpy(&udp->source, to->source_port, 2);
	__builtin_memcpy(&udp->dest, to->destination_port, 2);
	check = ~fold((__u16)~udp->check + (__u32)to->checksum);
	udp->check = check ? check : 0xffff;
	return 1;
}

/* Counts an RTP packet that leaves and its payload, for the statistics of its direction. */
static __always_inline void tally(__u32 at, __u32 octets)
{
	struct sallyport_tally *own = bpf_map_lookup_elem(&tallies, &at);

	if (own) {
		own->packets += 1;
		own->octets += octets;
	}
}

/* Whether the entry is still the packet's: the map puts the memory of an entry that goes into use for another flow at once,
 * without waiting for those who still read it (the worker tells by the epoch). The key is written first, so it is read last. */
static __always_inline int is_own(const struct sallyport_flow_value *flow, const struct sallyport_flow_key *key)
{
	const volatile __u64 *entry = (const void *)&flow->key;
	__u64 own[sizeof(*key) / sizeof(__u64)];
	__u64 difference = 0;

	__builtin_memcpy(own, key, sizeof(own));
	asm volatile("" : : : "memory");
#pragma unroll
	for (int i = 0; i < (int)(sizeof(own) / sizeof(own[0])); i++)
		difference |= own[i] ^ entry[i];
	return !difference;
}

/* Sends a packet of a flow whose action is to rewrite; less than 0 where it is for the worker. */
static __always_inline int rewrite(struct xdp_md *ctx, const struct sallyport_flow_value *flow,
				   const struct datagram *packet)
{
	int v4 = is_mapped(packet->key.local_address);
	__u32 length = bpf_xdp_get_buff_len(ctx);
	__u32 end = packet->payload + packet->payload_len;
	const struct sallyport_target *to = &flow->rtp;
	__u32 place, ifindex;
	__u8 head[2], back;
	int octets = -1, written;

	/* The shape that all senders have. A frame with a tag or options has its payload elsewhere. */
	if (packet->payload != (v4 ? PAYLOAD_V4_AT : PAYLOAD_V6_AT) || packet->payload_len < RTCP_FIXED)
		return -1;
	if (v4) {
		APART(4);
		if (!take(ctx, PAYLOAD_V4_AT, &head))
			return -1;
		APART(4);
	} else {
		APART(6);
		if (!take(ctx, PAYLOAD_V6_AT, &head))
			return -1;
		APART(6);
	}
	if (head[0] >> 6 != 2)
		return -1;
	if (head[1] >= 192 && head[1] <= 223) {
		to = &flow->rtcp;
		if (!rtcp_is_framed(ctx, packet->payload, packet->payload_len))
			return -1;
	} else {
		__u64 types = flow->payload_types[(head[1] >> 6) & 1];

		octets = rtp_payload(ctx, packet->payload, packet->payload_len, head[0]);
		if (octets < 0 || !(types >> (head[1] & 63) & 1))
			return -1;
	}
	/* IPv4 that may meet a narrower link leaves with an identification, so that it may be cut there: the worker counts those. */
	if (v4 && packet->payload_len > ANYWHERE)
		return -1;
	/* Longer than an ordinary frame it may lie in several buffers, and not every driver sends those. */
	if (end - IP_AT > to->mtu || length > SALLYPORT_FRAME_MAX)
		return -1;
	/* Octets behind the datagram are an interface's padding: the next one makes its own. */
	if (length > end && bpf_xdp_adjust_tail(ctx, (int)end - (int)length))
		return -1;
	if (v4) {
		APART(4);
		written = write_v4(ctx, to, packet->payload_len + sizeof(struct udphdr));
		APART(4);
	} else {
		APART(6);
		written = write_v6(ctx, to, packet->payload_len + sizeof(struct udphdr));
		APART(6);
	}
	if (!written)
		return -1;
	place = flow->tally;
	ifindex = to->ifindex;
	back = to->back;
	if (!is_own(flow, &packet->key))
		return leave(SALLYPORT_DROP_STALE_FLOW, XDP_DROP);
	if (octets >= 0)
		tally(place, octets);
	return leave(octets >= 0 ? SALLYPORT_REWRITE_RTP : SALLYPORT_REWRITE_RTCP,
		     back ? XDP_TX : bpf_redirect(ifindex, 0));
}

#endif
