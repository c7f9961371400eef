// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

// Stand-ins for the two x402 Permit2 proxies on the local chain, whose code is in no package. They have the functions,
// the signed witness and the refusals of those on public networks, at the same addresses. Compiled with solc 0.8.30,
// optimizer on (200 runs), EVM version "paris", no metadata; the runtime code is in permit2_proxies.json, which
// compile.mjs makes anew.

interface IPermit2 {
    struct TokenPermissions { address token; uint256 amount; }
    struct PermitTransferFrom { TokenPermissions permitted; uint256 nonce; uint256 deadline; }
    struct SignatureTransferDetails { address to; uint256 requestedAmount; }

    function permitWitnessTransferFrom(
        PermitTransferFrom calldata permit,
        SignatureTransferDetails calldata details,
        address owner,
        bytes32 witness,
        string calldata witnessTypeString,
        bytes calldata signature
    ) external;
}

abstract contract Proxy {
    IPermit2 internal constant PERMIT2 = IPermit2(0x000000000022D473030F116dDEE9F6B43aC78BA3);

    error InvalidAmount();
    error InvalidOwner();
    error InvalidDestination();
    error PaymentTooEarly();

    function move(
        IPermit2.PermitTransferFrom calldata permit,
        uint256 amount,
        address owner,
        address to,
        uint256 validAfter,
        bytes32 witness,
        string memory types,
        bytes calldata signature
    ) internal {
        if (amount == 0) revert InvalidAmount();
        if (owner == address(0)) revert InvalidOwner();
        if (to == address(0)) revert InvalidDestination();
        if (block.timestamp < validAfter) revert PaymentTooEarly();
        PERMIT2.permitWitnessTransferFrom(
            permit, IPermit2.SignatureTransferDetails(to, amount), owner, witness, types, signature
        );
    }
}

contract Exact is Proxy {
    struct Witness { address to; uint256 validAfter; }

    bytes32 internal constant WITNESS = keccak256("Witness(address to,uint256 validAfter)");
    string internal constant TYPES =
        "Witness witness)TokenPermissions(address token,uint256 amount)Witness(address to,uint256 validAfter)";

    function settle(
        IPermit2.PermitTransferFrom calldata permit,
        address owner,
        Witness calldata witness,
        bytes calldata signature
    ) external {
        bytes32 signed = keccak256(abi.encode(WITNESS, witness.to, witness.validAfter));
        move(permit, permit.permitted.amount, owner, witness.to, witness.validAfter, signed, TYPES, signature);
    }
}

contract Upto is Proxy {
    struct Witness { address to; address facilitator; uint256 validAfter; }

    error AmountExceedsPermitted();
    error UnauthorizedFacilitator();

    bytes32 internal constant WITNESS = keccak256("Witness(address to,address facilitator,uint256 validAfter)");
    string internal constant TYPES = "Witness witness)TokenPermissions(address token,uint256 amount)"
        "Witness(address to,address facilitator,uint256 validAfter)";

    function settle(
        IPermit2.PermitTransferFrom calldata permit,
        uint256 amount,
        address owner,
        Witness calldata witness,
        bytes calldata signature
    ) external {
        if (amount > permit.permitted.amount) revert AmountExceedsPermitted();
        if (msg.sender != witness.facilitator) revert UnauthorizedFacilitator();
        bytes32 signed = keccak256(abi.encode(WITNESS, witness.to, witness.facilitator, witness.validAfter));
        move(permit, amount, owner, witness.to, witness.validAfter, signed, TYPES, signature);
    }
}
