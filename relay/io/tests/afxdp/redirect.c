/* Redirects UDP of destination ports 4000 to 4999 to the AF_XDP socket of the receive queue; the rest passes.
 * Metadata in front of the frame: flow (direction = port, epoch = queue), but a punt at port 4900 and none at 4901. */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct {
    __uint(type, BPF_MAP_TYPE_XSKMAP);
    __uint(max_entries, 16);
    __type(key, __u32);
    __type(value, __u32);
} sockets SEC(".maps");

struct meta {
    __u32 magic, direction, epoch, kind;
};

static __always_inline int port_of(struct xdp_md *ctx)
{
    __u8 *at = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    __u16 type;

    if (at + 14 > end)
        return -1;
    type = *(__u16 *)(at + 12);
    at += 14;
    if (type == bpf_htons(0x8100)) {
        if (at + 4 > end)
            return -1;
        type = *(__u16 *)(at + 2);
        at += 4;
    }
    if (type == bpf_htons(0x0800)) {
        if (at + 28 > end || at[9] != 17)
            return -1;
        at += 20;
    } else if (type == bpf_htons(0x86dd)) {
        if (at + 48 > end || at[6] != 17)
            return -1;
        at += 40;
    } else {
        return -1;
    }
    return bpf_ntohs(*(__u16 *)(at + 2));
}

SEC("xdp.frags")
int redirect(struct xdp_md *ctx)
{
    int port = port_of(ctx);
    struct meta *meta;

    if (port < 4000 || port > 4999)
        return XDP_PASS;
    if (port != 4901) {
        if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(*meta)))
            return XDP_ABORTED;
        meta = (void *)(long)ctx->data_meta;
        if ((void *)(meta + 1) > (void *)(long)ctx->data)
            return XDP_ABORTED;
        meta->magic = 0x53505254;
        meta->direction = port;
        meta->epoch = ctx->rx_queue_index;
        meta->kind = port == 4900 ? 2 : 1;
    }
    return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_DROP);
}

char _license[] SEC("license") = "Dual MIT/GPL";
